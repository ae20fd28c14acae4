"""A message of ACTION_EVENTS as an event, or as none: anybody may have written it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from google.protobuf.json_format import Error, Parse
from nats.aio.msg import Msg

from agent.errors import InvalidArgument
from agent.events import subjects
from agent.messages.events import event_from
from agent.messages.model import Event
from agent.messages.requests import check_action_id
from agent.pb.checkpoint_agent.v1 import actions_pb2 as pb

# Bytes. An agent's largest, an error with a log's tail and all details, have a tenth of it.
MAX_EVENT: Final = 1 << 20
# What every database takes as a number; NaN is not below it either.
_LARGEST: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """One message. ``event`` is None where it is no ActionEvent; nothing is known of it then.

    ``sequence`` is its place in the stream, ``cluster`` and ``node`` who says so, ``payload`` its
    JSON.
    """

    sequence: int
    event: Event | None
    cluster: str
    node: str
    payload: bytes


def stored_event(message: Msg) -> StoredEvent:
    """What a message says."""
    sequence = message.metadata.sequence.stream
    try:
        said, event = _read(message.subject, message.data)
    except (ValueError, OverflowError, RecursionError, Error, InvalidArgument):
        return StoredEvent(sequence, None, "", "", message.data)
    return StoredEvent(sequence, event, said.cluster, said.node, message.data)


def _read(subject: str, data: bytes) -> tuple[pb.ActionEvent, Event]:
    """Raises one of what stored_event catches."""
    if len(data) > MAX_EVENT:
        raise ValueError("too big")
    # A newer agent may say more. What it calls a state that is unknown here is none.
    message = Parse(data, pb.ActionEvent(), ignore_unknown_fields=True, max_recursion_depth=20)
    check_action_id(message.action_id)
    # Who may publish where is the broker's to say: a message tells nothing of other clusters.
    if subject != subjects.event_subject(message.cluster, message.action_id):
        raise ValueError("the subject says something else than the message")
    event = event_from(message)
    if not all(abs(number) <= _LARGEST for number in _numbers(event)):
        raise ValueError("a number that is none")
    return message, event


def _numbers(value: object) -> Iterator[float]:
    if isinstance(value, int | float):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _numbers(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _numbers(each)
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from _numbers(getattr(value, field.name))
