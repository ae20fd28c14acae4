"""Errors as gRPC statuses, and back: the only place where the one becomes the other.

A status carries google.rpc.ErrorInfo and, for a field of the request, google.rpc.BadRequest, which
any client can read, and our own ErrorInfo (proto/), from which our client makes the same error.
"""

from __future__ import annotations

import string
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final
from urllib.parse import quote

import grpc
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import (  # type: ignore[import-untyped]
    BadRequest,
    ErrorInfo,
)
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]

from agent.errors import AgentError
from agent.messages.events import failure_from, failure_message
from agent.messages.model import Failure
from agent.pb.checkpoint_agent.v1 import actions_pb2 as pb

DOMAIN: Final = "checkpoint-agent"

# Where gRPC's libraries look for a google.rpc.Status.
DETAILS_KEY: Final = "grpc-status-details-bin"

# Bytes of UTF-8: gRPC limits what is sent beside an answer to 8 KiB, and drops the whole answer
# when it is more.
MAX_VALUE: Final = 256
MAX_MESSAGE: Final = 1024
MAX_LOG_TAIL: Final = 2048

# What a header carries as it is.
_PLAIN: Final = (string.ascii_letters + string.digits + string.punctuation + " ").replace("%", "")

_CODES: Final[Mapping[str, grpc.StatusCode]] = {
    "action_not_found": grpc.StatusCode.NOT_FOUND,
    "agent_restarted": grpc.StatusCode.ABORTED,
    "agent_stopping": grpc.StatusCode.UNAVAILABLE,
    "agent_unreachable": grpc.StatusCode.UNAVAILABLE,
    "already_exists": grpc.StatusCode.ALREADY_EXISTS,
    "already_running": grpc.StatusCode.ALREADY_EXISTS,
    "broker_failed": grpc.StatusCode.UNAVAILABLE,
    "bundle_invalid": grpc.StatusCode.FAILED_PRECONDITION,
    "cancelled": grpc.StatusCode.CANCELLED,
    "checkpoint_corrupt": grpc.StatusCode.DATA_LOSS,
    "checkpoint_not_found": grpc.StatusCode.NOT_FOUND,
    "checkpoint_unknown": grpc.StatusCode.UNKNOWN,
    "cluster_refused": grpc.StatusCode.FAILED_PRECONDITION,
    "cluster_unreachable": grpc.StatusCode.UNAVAILABLE,
    "dump_failed": grpc.StatusCode.ABORTED,
    "format_too_new": grpc.StatusCode.FAILED_PRECONDITION,
    "freeze_not_found": grpc.StatusCode.NOT_FOUND,
    "frozen_too_long": grpc.StatusCode.ABORTED,
    "interrupted": grpc.StatusCode.CANCELLED,
    "invalid_argument": grpc.StatusCode.INVALID_ARGUMENT,
    "missing_tool": grpc.StatusCode.FAILED_PRECONDITION,
    "part_failed": grpc.StatusCode.ABORTED,
    "pod_ambiguous": grpc.StatusCode.FAILED_PRECONDITION,
    "pod_not_found": grpc.StatusCode.NOT_FOUND,
    "queue_full": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "redelivered_too_often": grpc.StatusCode.ABORTED,
    "gpu_stuck": grpc.StatusCode.ABORTED,
    "network_stuck": grpc.StatusCode.ABORTED,
    "restore_failed": grpc.StatusCode.ABORTED,
    "restore_unknown": grpc.StatusCode.UNKNOWN,
    "started_cold": grpc.StatusCode.ABORTED,
    "shutting_down": grpc.StatusCode.UNAVAILABLE,
    "store_failed": grpc.StatusCode.UNAVAILABLE,
    "target_busy": grpc.StatusCode.ABORTED,
    "target_lost": grpc.StatusCode.ABORTED,
    "target_not_checkpointable": grpc.StatusCode.FAILED_PRECONDITION,
    "target_not_found": grpc.StatusCode.NOT_FOUND,
}


def grpc_code(failure: Failure) -> grpc.StatusCode:
    """The status code that is closest to a failure; INTERNAL for what is a bug."""
    return _CODES.get(failure.code, grpc.StatusCode.INTERNAL)


def text_of(failure: Failure) -> str:
    """What people read of it."""
    text = _head(failure.message, MAX_MESSAGE)
    # In a header all but plain ASCII takes three times as much.
    while (size := len(quote(text, safe=_PLAIN))) > MAX_MESSAGE:
        text = text[: len(text) * MAX_MESSAGE // size]
    return text


def trailing_metadata(failure: Failure) -> tuple[tuple[str, bytes], ...]:
    """What goes with the status: all that is known, cut to what gRPC can carry."""
    failure = _cut(failure)
    status = Status(code=grpc_code(failure).value[0], message=failure.message)
    status.details.add().Pack(
        ErrorInfo(reason=failure.code, domain=DOMAIN, metadata=_metadata(failure))
    )
    if failure.field:
        bad = BadRequest()
        bad.field_violations.add(field=failure.field, description=_reason(failure))
        status.details.add().Pack(bad)
    status.details.add().Pack(failure_message(failure))
    return ((DETAILS_KEY, status.SerializeToString()),)


def _metadata(failure: Failure) -> dict[str, str]:
    named = {"state": failure.state, "hint": failure.hint}
    values = {name: str(value) for name, value in failure.details.items()}
    return {name: value for name, value in {**values, **named}.items() if value}


def _reason(failure: Failure) -> str:
    return str(failure.details.get("reason", failure.message))


def _cut(failure: Failure) -> Failure:
    details = {
        name: _head(value, MAX_VALUE) if isinstance(value, str) else value
        for name, value in failure.details.items()
    }
    return Failure(
        code=failure.code,
        message=_head(failure.message, MAX_MESSAGE),
        state=failure.state,
        hint=failure.hint,
        field=_head(failure.field, MAX_VALUE),
        log_tail=_bytes(failure.log_tail)[-MAX_LOG_TAIL:].decode(errors="ignore"),
        details=details,
    )


def _head(text: str, most: int) -> str:
    return _bytes(text)[:most].decode(errors="ignore")


def _bytes(text: str) -> bytes:
    """File names need not be UTF-8, and what Python makes of them no message can carry."""
    return text.encode(errors="backslashreplace")


def failure_of(metadata: Iterable[Any]) -> Failure | None:
    """What trailing_metadata has written; None where another program has answered."""
    for key, value in metadata:
        if key != DETAILS_KEY or not isinstance(value, bytes):
            continue
        try:
            status = Status.FromString(value)
        except DecodeError:
            return None
        for detail in status.details:
            message = pb.ErrorInfo()
            if detail.Is(message.DESCRIPTOR):
                detail.Unpack(message)
                return failure_from(message)
    return None


def error_of(failure: Failure) -> AgentError:
    """The error that a failure was made of: its class, message, state, hint and fields."""
    known: list[type[AgentError]] = [AgentError, *_classes(AgentError)]
    kind = next((one for one in known if one.code == failure.code), AgentError)
    told: type[AgentError] = type(
        kind.__name__,
        (kind,),
        {
            "code": failure.code,
            "state": failure.state,
            "hint": failure.hint,
            # As it was put there: this side's wording may be another version's.
            "template": failure.message.replace("{", "{{").replace("}", "}}"),
        },
    )
    error = told.__new__(told)
    vars(error).update({name: _whole(value) for name, value in failure.details.items()})
    if failure.log_tail:
        vars(error)["log_tail"] = failure.log_tail
    return error


def _classes(kind: type[AgentError]) -> Iterator[type[AgentError]]:
    """Without those that error_of has made, which go when nobody holds them."""
    for one in kind.__subclasses__():
        if one.__module__ != __name__:
            yield one
            yield from _classes(one)


def _whole(value: str | float | bool) -> str | float | bool:
    """Struct knows no whole numbers."""
    return int(value) if isinstance(value, float) and value.is_integer() else value
