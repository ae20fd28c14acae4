"""JetStream seen through NATS's text protocol: what a stream holds, what a consumer still owes."""

from __future__ import annotations

import base64
import json
import secrets
from dataclasses import dataclass
from typing import Any

from tests.servers.nats import NatsServer
from tests.servers.nats_client import PlainClient

Json = dict[str, Any]


class RefusedByServer(Exception):
    """JetStream answered a request with an error."""


class Api(PlainClient):
    """One connection that asks JetStream's API, one request after the other."""

    def ask(self, subject: str, request: Json | None = None) -> Json:
        """What it answers.

        Raises:
            RefusedByServer: it answers with an error.
        """
        inbox = f"_INBOX.{secrets.token_hex(8)}"
        payload = json.dumps(request).encode() if request else b""
        self._socket.sendall(
            b"SUB %s 1\r\nUNSUB 1 1\r\nPUB $JS.API.%s %s %d\r\n%s\r\n"
            % (inbox.encode(), subject.encode(), inbox.encode(), len(payload), payload)
        )
        answer: Json = json.loads(self._message())
        if "error" in answer:
            raise RefusedByServer(answer["error"]["description"])
        return answer

    def _message(self) -> bytes:
        """The payload of the next message for us."""
        while not (line := self._answers.readline()).startswith(b"MSG "):
            if not line:
                raise ConnectionResetError
            if line == b"PING\r\n":
                self._socket.sendall(b"PONG\r\n")
        payload = self._answers.read(int(line.split()[-1]) + 2)
        return payload[:-2]


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a stream."""

    subject: str
    message_id: str
    body: Json


class Stream:
    """Everything that a stream has ever held, as far as the server could be asked."""

    def __init__(self, server: NatsServer, name: str) -> None:
        self._server, self._name = server, name
        self._seen: list[Message] = []

    def messages(self) -> list[Message]:
        """In their order. While the server is away: what was seen before."""
        try:
            with Api(self._server.port) as api:
                state = api.ask(f"STREAM.INFO.{self._name}")["state"]
                while len(self._seen) < state["last_seq"]:
                    request = {"seq": len(self._seen) + 1}
                    found = api.ask(f"STREAM.MSG.GET.{self._name}", request)["message"]
                    self._seen.append(_message(found))
        except OSError:
            pass
        return self._seen

    def owed(self, consumer: str) -> int:
        """How many messages a consumer has not acknowledged yet, delivered or not."""
        with Api(self._server.port) as api:
            info = api.ask(f"CONSUMER.INFO.{self._name}.{consumer}")
        return int(info["num_pending"]) + int(info["num_ack_pending"])


def _message(found: Json) -> Message:
    headers = base64.b64decode(found.get("hdrs", "")).decode().splitlines()
    ids = [line.partition(":")[2].strip() for line in headers if line.startswith("Nats-Msg-Id:")]
    return Message(found["subject"], "".join(ids), json.loads(base64.b64decode(found["data"])))
