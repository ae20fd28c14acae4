"""Which messages of ACTION_EVENTS are events, and what is made of the others."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from agent.events import StoredEvent
from agent.events.stored import stored_event
from agent.messages.events import event_message
from agent.messages.model import (
    ActionType,
    CheckpointOutcome,
    Event,
    Failure,
    Progress,
    RestoredMember,
    RestoreOutcome,
    State,
)
from agent.messages.requests import to_json
from agent.targets import PodRef

POD = PodRef("u1", "default", "web")
TIME = datetime(2026, 1, 1, 12, tzinfo=UTC)
CHECKPOINT = CheckpointOutcome(
    "c1", "s3://b/c1", "web", 0.1, 0.2, {"dump": 0.1}, 1 << 40, 1 << 30, 9, 4, containers=("web",)
)
RESTORE = RestoreOutcome("s3://b/c1", 1.5, {"unpack": 1.0}, 9, 5, (RestoredMember("web", "c", 7),))
EVENTS = [
    Event("a1", 2, State.PROCESSING, ActionType.CHECKPOINT, TIME, POD, Progress("dump", 1, 2, 3)),
    Event("a1", 3, State.READY, ActionType.CHECKPOINT, TIME, POD, checkpoint=CHECKPOINT),
    Event("a.b", 3, State.READY, ActionType.RESTORE, TIME, restore=RESTORE),
    Event("a1", 0, State.ERROR, ActionType.RESTORE, TIME, failure=Failure("c", "words")),
]


def stored(data: bytes, subject: str = "action-events.test.a1") -> StoredEvent:
    reply = "$JS.ACK.ACTION_EVENTS.reader.1.5.1.1700000000000000000.0"
    return stored_event(Msg(Client(), subject, reply, data))


def message(event: Event = EVENTS[1]) -> dict[str, Any]:
    said = event_message(event, cluster="test", node="node-a")
    found: dict[str, Any] = json.loads(to_json(said))
    return found


@pytest.mark.parametrize("event", EVENTS)
def test_what_an_agent_has_said_is_read_as_it_was(event: Event) -> None:
    data = json.dumps(message(event)).encode()
    found = stored(data, f"action-events.test.{event.action_id}")
    assert found == StoredEvent(5, event, "test", "node-a", data)


def test_a_newer_agent_may_say_more() -> None:
    said = message() | {"mood": "good", "more": {"x": [1]}}
    said["checkpoint"]["mood"] = "better"
    assert stored(json.dumps(said).encode()).event == EVENTS[1]


WRONG: dict[str, dict[str, Any]] = {
    "an unknown state": {"state": "paused"},
    "an unknown state's number": {"state": 77},
    "no state": {"state": "not_found"},
    "an unknown type": {"type": "move_pod"},
    "no id": {"actionId": ""},
    "no id of an action": {"actionId": "../a1"},
    "another's id": {"actionId": "a2"},
    "another's cluster": {"cluster": "prod"},
    "a negative number": {"sequence": "-1"},
    "a number that no database takes": {"sequence": str(2**63)},
    "a size that no database takes": {"progress": {"bytesRaw": str(2**64 - 1)}},
    "no number": {"progress": {"bytesPerSecond": "NaN"}},
    "no number among others": {"checkpoint": {"phases": {"dump": "Infinity"}}},
    "no time": {"time": "yesterday"},
    "no pod": {"pod": [1]},
    "no text": {"node": "\ud800"},
    "a depth": {"failure": {"details": {"a": json.loads("[" * 50 + "]" * 50)}}},
    "too much": {"node": "x" * (1 << 20)},
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_no_agent_says_is_no_event(kind: str) -> None:
    data = json.dumps(message() | WRONG[kind]).encode()
    assert stored(data) == StoredEvent(5, None, "", "", data)


@pytest.mark.parametrize(
    "data", [b"", b"{", b"null", b"[]", b"3", b'"x"', b"\xff", b"[" * 100_000, b'{"a":' * 100_000]
)
def test_what_is_no_json_is_no_event(data: bytes) -> None:
    assert stored(data) == StoredEvent(5, None, "", "", data)
