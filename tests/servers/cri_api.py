"""A client for the container runtime interface (CRI), from the API's own definition.

`api.proto` is not part of this repository: deploy/cri-api.sh takes it from a package of the
distribution. It is compiled when a test needs it, and requests are plain dictionaries, in the
protobuf JSON form, so that nothing has to be generated and kept.
"""

from __future__ import annotations

import base64
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, MethodDescriptor, ServiceDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

PROTO = Path(__file__).resolve().parents[2] / ".tools" / "cri-api" / "api.proto"

# Seconds for one call. Making a sandbox takes about one on two loaded cores.
CALL_TIMEOUT = 45.0

Json = dict[str, Any]


class CriClient:
    """Calls the runtime and image services behind one socket."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel
        self._services = _services()

    def runtime(self, method: str, request: Json | None = None) -> Json:
        """Call a method of ``RuntimeService``.

        Raises:
            grpc.RpcError: it failed, with the server's words.
        """
        return self._call("RuntimeService", method, request or {})

    def image(self, method: str, request: Json | None = None) -> Json:
        """Call a method of ``ImageService``.

        Raises:
            grpc.RpcError: it failed, with the server's words.
        """
        return self._call("ImageService", method, request or {})

    def execute(self, container_id: str, *command: str) -> str:
        """Run a command in a container and return its output, errors included.

        Raises:
            AssertionError: it ended with an error; the text is its output.
        """
        request = {"container_id": container_id, "cmd": list(command), "timeout": 20}
        done = self.runtime("ExecSync", request)
        # Bytes in the protobuf JSON form.
        both = (base64.b64decode(done.get(name, "")) for name in ("stdout", "stderr"))
        text = b"".join(both).decode(errors="replace")
        if done.get("exit_code", 0):
            raise AssertionError(f"{command}: {text}")
        return text

    def _call(self, service: str, name: str, request: Json) -> Json:
        method: MethodDescriptor = self._services[service].methods_by_name[name]
        call = self._channel.unary_unary(
            f"/runtime.v1.{service}/{name}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=_message_class(method.output_type).FromString,
        )
        message = json_format.ParseDict(request, _message_class(method.input_type)())
        answer = call(message, timeout=CALL_TIMEOUT)
        return json_format.MessageToDict(answer, preserving_proto_field_name=True)


@contextmanager
def cri_client(socket: Path) -> Iterator[CriClient]:
    """A client of the CRI at a unix socket, which need not answer yet."""
    with grpc.insecure_channel(f"unix:{socket}") as channel:
        yield CriClient(channel)


def _message_class(descriptor: Descriptor) -> type[Message]:
    return GetMessageClass(descriptor)


def _services() -> dict[str, ServiceDescriptor]:
    """The services of api.proto, whose Go-only options (gogoproto) are left out."""
    if not PROTO.exists():
        raise RuntimeError(f"no {PROTO}; `make setup` fetches it")
    text = "".join(
        re.sub(r"\s*\[\(gogoproto[^\]]*\]", "", line)
        for line in PROTO.read_text().splitlines(keepends=True)
        if not re.match(r"(import|option) .*gogoproto", line)
    )
    with tempfile.TemporaryDirectory(prefix="cri-api-") as folder:
        (Path(folder) / "api.proto").write_text(text)
        compiled = Path(folder) / "api.binpb"
        subprocess.run(
            [sys.executable, "-m", "grpc_tools.protoc", f"--proto_path={folder}",
             f"--descriptor_set_out={compiled}", "api.proto"],
            check=True,
        )  # fmt: skip
        described = FileDescriptorSet.FromString(compiled.read_bytes())
    pool = DescriptorPool()
    for each in described.file:
        pool.Add(each)
    return dict(pool.FindFileByName("api.proto").services_by_name)
