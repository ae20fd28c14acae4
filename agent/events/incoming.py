"""A message's bytes as a request, or as the best answer that can be given to it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Final

from google.protobuf.descriptor import Descriptor
from google.protobuf.json_format import ParseDict, ParseError
from google.protobuf.message_factory import GetMessageClass

from agent.errors import AgentError, InvalidArgument
from agent.events import subjects
from agent.messages.model import ActionRequest, ActionType
from agent.messages.requests import MAX_REQUEST, check_action_id, from_json, request_from
from agent.pb.checkpoint_agent.v1 import actions_pb2 as pb

# Where not even the braces match, or there are megabytes between them: at the beginning, where an
# id is by all habits, or at the end.
_ID: Final = re.compile(rb'"action_?[iI]d"\s*:\s*"([A-Za-z0-9._-]{1,128})"')
_END: Final = 64 << 10

# Characters of a field's name, which may be anything that was sent.
_LONGEST_FIELD: Final = 200


@dataclass(eq=False)
class Refused(Exception):
    """A message that cannot be acted on. ``action_id`` is None where none can be read."""

    action_id: str | None
    type: ActionType
    error: AgentError


def read_request(data: bytes, kind: str) -> ActionRequest:
    """What a message on a subject that ends in ``kind`` asks for.

    Raises:
        Refused: with an error that names the field.
    """
    try:
        message = _parse(data)
        _agree(message, kind)
        return request_from(message)
    except InvalidArgument as error:
        raise _refused(data, kind, error) from None


def read_cancel(data: bytes) -> str:
    """The id of the action that a message asks to give up.

    Raises:
        Refused: as above.
    """
    try:
        message = _parse(data)
        if message.WhichOneof("action") is not None:
            _agree(message, subjects.CANCEL)
        return check_action_id(message.action_id)
    except InvalidArgument as error:
        raise _refused(data, subjects.CANCEL, error) from None


def _parse(data: bytes) -> pb.ActionRequest:
    try:
        return from_json(data, pb.ActionRequest())
    except InvalidArgument as error:
        raise InvalidArgument(_from_top(data, error.argument), error.reason) from None


def _from_top(data: bytes, field: str) -> str:
    """A field by its whole path; protobuf names some by their last names alone."""
    if field != "message":
        field = ".".join(_first_wrong(json.loads(data), pb.ActionRequest.DESCRIPTOR)) or field
    return field[:_LONGEST_FIELD]


def _first_wrong(value: object, kind: Descriptor) -> list[str]:
    """The path of the first field that a message of this kind has not, or not so."""
    for key, inner in value.items() if isinstance(value, dict) else ():
        field = kind.fields_by_camelcase_name.get(key) or kind.fields_by_name.get(key)
        if field is None:
            return [_camel(key)]
        if not _fits(key, inner, kind):
            deeper = _first_wrong(inner, field.message_type) if field.message_type else []
            return [field.camelcase_name, *deeper]
    return []


def _fits(key: str, value: object, kind: Descriptor) -> bool:
    try:
        ParseDict({key: value}, GetMessageClass(kind)())
    except ParseError:
        return False
    return True


def _agree(message: pb.ActionRequest, kind: str) -> None:
    """The subject decides who gets a message, so it may not say something else than the message."""
    which = message.WhichOneof("action")
    if which is not None and which != kind:
        raise InvalidArgument("action", f"the subject says {kind}, the message {which}")


def _refused(data: bytes, kind: str, error: InvalidArgument) -> Refused:
    of = ActionType.RESTORE if kind == "restore" else ActionType.CHECKPOINT
    return Refused(_action_id(data), of, error)


def _action_id(data: bytes) -> str | None:
    """An id that can be answered to, by whatever means."""
    candidate: object
    try:
        if len(data) > MAX_REQUEST:
            raise ValueError
        message = json.loads(data)
    except (ValueError, RecursionError):
        found = _ID.search(data[:_END]) or _ID.search(data[-_END:])
        candidate = found[1].decode() if found else None
    else:
        given = message if isinstance(message, dict) else {}
        candidate = given.get("actionId", given.get("action_id"))
    try:
        return check_action_id(candidate) if isinstance(candidate, str) else None
    except InvalidArgument:
        return None


def _camel(name: str) -> str:
    """A field's name as it is in JSON."""
    first, *others = name.split("_")
    return first + "".join(word.capitalize() for word in others)
