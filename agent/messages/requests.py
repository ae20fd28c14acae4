"""Requests as protobuf messages, and as what the agent works with.

Everything here comes from outside: names, numbers and paths are checked before anybody acts on
them, and an error says which field is wrong in the spelling of the message.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TypeVar

from google.protobuf.json_format import MessageToJson, ParseError
from google.protobuf.json_format import Parse as parse_json
from google.protobuf.message import Message

from agent.config import DEFAULT_RUNC_ROOT
from agent.errors import InvalidArgument
from agent.messages.model import (
    ActionRequest,
    CheckpointOverrides,
    CheckpointSpec,
    RestoreOverrides,
    RestoreSpec,
)
from agent.pb.checkpoint_agent.v1 import actions_pb2 as pb
from agent.targets import Kind, PodRef, ProcessTarget, RuncTarget

# What an id may be: it names rows, message ids and subjects, in which no word may be empty.
_ACTION_ID = re.compile(r"(?=.{1,128}\Z)[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*")

# More than any request needs, and little enough to be parsed without harm.
MAX_REQUEST = 256 << 10
# Characters of a checkpoint's name, wherever it comes from: events have it, and the inventory.
MAX_NAME = 253

M = TypeVar("M", bound=Message)


def from_json(data: bytes, message: M) -> M:
    """Fill ``message`` from its JSON form.

    Raises:
        InvalidArgument: it is too big, no JSON, or not of this type; says which field.
    """
    if len(data) > MAX_REQUEST:
        raise InvalidArgument("message", f"{len(data)} bytes are more than {MAX_REQUEST}")
    try:
        return parse_json(data.decode(), message, max_recursion_depth=20)
    except (UnicodeDecodeError, RecursionError) as error:
        raise InvalidArgument("message", str(error)) from error
    except ParseError as error:
        text = str(error).partition("\n")[0]
        raise InvalidArgument(_place(text), text[:500]) from error


def _place(complaint: str) -> str:
    """The field that protobuf's parser complains about, as far as it tells; else ``message``."""
    path = re.search(r'at "?\w+((?:\.\w+)*)"?\.?$', complaint)
    names = path.group(1).split(".")[1:] if path else re.findall(r"parse (\w+) field", complaint)
    unknown = re.findall(r'has no field named "(\w+)"', complaint)
    return ".".join(names + unknown) or "message"


def to_json(message: Message) -> bytes:
    """The canonical JSON form, on one line."""
    return MessageToJson(message, indent=None).encode()


def check_action_id(action_id: str) -> str:
    """The same id. Raises InvalidArgument unless it is one."""
    if not _ACTION_ID.fullmatch(action_id):
        words = "takes up to 128 letters, digits and ._-, no two dots together and none at the end"
        raise InvalidArgument("actionId", words if action_id else "is missing")
    return action_id


def request_from(message: pb.ActionRequest) -> ActionRequest:
    """What a message asks for.

    Raises:
        InvalidArgument: names the field that cannot be used.
    """
    action_id = check_action_id(message.action_id)
    which = message.WhichOneof("action")
    if which == "checkpoint":
        return ActionRequest(action_id, checkpoint_from(message.checkpoint))
    if which == "restore":
        return ActionRequest(action_id, restore_from(message.restore))
    raise InvalidArgument("action", "give `checkpoint` or `restore`")


def checkpoint_from(message: pb.CheckpointRequest) -> CheckpointSpec:
    """Raises InvalidArgument."""
    overrides = message.overrides
    streams = overrides.streams if overrides.HasField("streams") else None
    return CheckpointSpec(
        target=_target(message),
        kind=_kind(message.kind),
        reason=_name_of(pb.CheckpointRequest.Reason, message.reason, "checkpoint.reason"),
        name=_text(message.name, "checkpoint.name", MAX_NAME) or None,
        overrides=CheckpointOverrides(
            asynchronous=overrides.asynchronous if overrides.HasField("asynchronous") else None,
            compression=overrides.compression or None,
            criu_opts=overrides.criu_opts or None,
            directory=overrides.directory or None,
            # The Actions API cannot leave a number out: 0 is the node's own.
            streams=streams or None,
        ),
    )


def restore_from(message: pb.RestoreRequest) -> RestoreSpec:
    """Raises InvalidArgument."""
    if not message.path:
        raise InvalidArgument("restore.path", "is missing")
    return RestoreSpec(
        path=_text(message.path, "restore.path", 4096),
        reason=_name_of(pb.RestoreRequest.Reason, message.reason, "restore.reason"),
        member=_text(message.member, "restore.member", 253) or None,
        container_id=_text(message.container_id, "restore.containerId", 1024) or None,
        bundle=_text(message.bundle, "restore.bundle", 4096) or None,
        runc_root=_absolute(message.runc_root, "restore.runcRoot"),
        overrides=RestoreOverrides(
            criu_opts=message.overrides.criu_opts or None,
            pod_name=_text(message.overrides.pod_name, "restore.overrides.podName", 253) or None,
        ),
        pod=_restored_pod(message),
    )


def _restored_pod(message: pb.RestoreRequest) -> PodRef | None:
    if not message.HasField("pod"):
        return None
    for field in ("member", "container_id", "bundle", "runc_root", "overrides"):
        if getattr(message, field) not in ("", pb.RestoreOverrides()):
            raise InvalidArgument(f"restore.{_camel(field)}", "does not go with `pod`")
    pod = pod_from(message.pod, "restore.pod")
    if not pod.uid:
        raise InvalidArgument("restore.pod.uid", "is missing")
    return pod


def _camel(name: str) -> str:
    """A field's name as protobuf's JSON form spells it."""
    first, *others = name.split("_")
    return first + "".join(other.capitalize() for other in others)


def message_of(request: ActionRequest) -> pb.ActionRequest:
    """The message that request_from reads."""
    message = pb.ActionRequest(action_id=request.action_id)
    if isinstance(request.spec, CheckpointSpec):
        message.checkpoint.CopyFrom(checkpoint_message(request.spec))
    else:
        message.restore.CopyFrom(restore_message(request.spec))
    return message


def checkpoint_message(spec: CheckpointSpec) -> pb.CheckpointRequest:
    """The message that checkpoint_from reads."""
    message = pb.CheckpointRequest(
        kind=pb.CheckpointRequest.Kind.Value(spec.kind.value),
        reason=pb.CheckpointRequest.Reason.Value(spec.reason),
        name=spec.name or "",
    )
    if isinstance(spec.target, PodRef):
        message.pod.CopyFrom(pod_message(spec.target))
    elif isinstance(spec.target, RuncTarget):
        message.container.id = spec.target.container
        message.container.runc_root = str(spec.target.root)
    else:
        message.process.pid = spec.target.pid
    given = spec.overrides
    for name in ("asynchronous", "compression", "criu_opts", "directory", "streams"):
        if (value := getattr(given, name)) is not None:
            setattr(message.overrides, name, value)
    return message


def restore_message(spec: RestoreSpec) -> pb.RestoreRequest:
    """The message that restore_from reads."""
    message = pb.RestoreRequest(
        path=spec.path,
        reason=pb.RestoreRequest.Reason.Value(spec.reason),
        member=spec.member or "",
        container_id=spec.container_id or "",
        bundle=spec.bundle or "",
        runc_root=spec.runc_root or "",
    )
    if spec.overrides.criu_opts is not None:
        message.overrides.criu_opts = spec.overrides.criu_opts
    if spec.overrides.pod_name is not None:
        message.overrides.pod_name = spec.overrides.pod_name
    if spec.pod is not None:
        message.pod.CopyFrom(pod_message(spec.pod))
    return message


def pod_from(message: pb.PodRef, field: str) -> PodRef:
    """Raises InvalidArgument unless it has a UID, or a namespace and a name."""
    pod = PodRef(
        uid=_text(message.uid, f"{field}.uid", 128),
        namespace=_text(message.namespace, f"{field}.namespace", 253),
        name=_text(message.name, f"{field}.name", 253),
    )
    if not pod.uid and not (pod.namespace and pod.name):
        raise InvalidArgument(field, "give its uid, or its namespace and name")
    return pod


def pod_message(pod: PodRef) -> pb.PodRef:
    """The message that pod_from reads."""
    return pb.PodRef(uid=pod.uid, namespace=pod.namespace, name=pod.name)


def _target(message: pb.CheckpointRequest) -> PodRef | RuncTarget | ProcessTarget:
    which = message.WhichOneof("target")
    if which == "pod":
        return pod_from(message.pod, "checkpoint.pod")
    if which == "container":
        return container_from(message.container, "checkpoint.container")
    if which == "process":
        if message.process.pid < 2:
            raise InvalidArgument("checkpoint.process.pid", f"{message.process.pid} is no process")
        return ProcessTarget(message.process.pid)
    raise InvalidArgument("checkpoint", "give `pod`, `container` or `process`")


def container_from(message: pb.ContainerRef, field: str) -> RuncTarget:
    """Raises InvalidArgument."""
    container = _text(message.id, f"{field}.id", 1024)
    if not container:
        raise InvalidArgument(f"{field}.id", "is missing")
    root = _absolute(message.runc_root, f"{field}.runcRoot")
    return RuncTarget(container, Path(root) if root else DEFAULT_RUNC_ROOT)


def _kind(value: int) -> Kind:
    return Kind(_name_of(pb.CheckpointRequest.Kind, value, "checkpoint.kind"))


def _name_of(enum: object, value: int, field: str) -> str:
    try:
        return str(enum.Name(value))  # type: ignore[attr-defined]
    except ValueError as error:
        raise InvalidArgument(field, f"{value} is not one of its values") from error


def _text(value: str, field: str, limit: int) -> str:
    if len(value) > limit:
        raise InvalidArgument(field, f"is longer than {limit} characters")
    if not value.isprintable():
        raise InvalidArgument(field, "has characters that cannot be printed")
    return value


def _absolute(value: str, field: str) -> str | None:
    path = _text(value, field, 4096)
    if path and (not path.startswith("/") or ".." in path.split("/")):
        raise InvalidArgument(field, "has to be an absolute path without `..`")
    return path or None
