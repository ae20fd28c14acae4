"""What the rows of the journal mean."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from agent.errors import AgentError
from agent.host.boot import Moment
from agent.logs import get_logger
from agent.messages.events import event_from
from agent.messages.model import Action
from agent.messages.requests import from_json, request_from
from agent.pb.checkpoint_agent.v1 import actions_pb2 as pb

# Of an action: its request, when it was accepted, and its latest event.
ActionRow = tuple[str, str, str]

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """An event that the broker has not confirmed yet; the payload is pb.ActionEvent as JSON."""

    id: int
    action_id: str
    sequence: int
    payload: bytes

    @property
    def message_id(self) -> str:
        """The same for every delivery of the same event."""
        return f"{self.action_id}.{self.sequence}"


@dataclass(frozen=True, slots=True)
class Attempt:
    """What was begun for an action: where its checkpoint goes, or comes from."""

    checkpoint_id: str
    store: str


@dataclass(frozen=True, slots=True)
class OpenAction:
    """An action that is not terminal; no attempt was made while it waits for its turn.

    ``begun`` is when the attempt was: before anything was touched. An agent of an older version
    has not noted it.
    """

    action: Action
    attempt: Attempt | None
    begun: Moment | None


def readable(row: ActionRow) -> Action | None:
    """An action; what cannot be read keeps the agent from none of the others."""
    try:
        return action_of(row)
    except AgentError as error:
        _log.error(
            "an action in the journal cannot be read", reason=str(error), action=row[0][:200]
        )
        return None


def action_of(row: ActionRow) -> Action:
    """Raises InvalidArgument: nobody can have written it."""
    request, accepted, event = row
    return Action(
        request=request_from(from_json(request.encode(), pb.ActionRequest())),
        accepted=datetime.fromisoformat(accepted),
        event=event_from(from_json(event.encode(), pb.ActionEvent())),
    )
