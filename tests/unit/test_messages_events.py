"""Events survive the wire, and errors travel whole."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from agent.errors import DumpFailed, InvalidArgument
from agent.messages.events import event_from, event_message
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
from agent.messages.requests import from_json, to_json
from agent.pb.checkpoint_agent.v1 import actions_pb2 as pb
from agent.targets import PodRef

NOW = datetime(2026, 11, 24, 3, 0, 0, 250_000, tzinfo=UTC)

OUTCOME = CheckpointOutcome(
    checkpoint_id="5f3d",
    path="file:///srv/5f3d",
    name="nightly",
    frozen_seconds=0.25,
    wall_seconds=1.5,
    phases={"dump": 0.2, "unaccounted": 0.1},
    bytes_raw=1 << 40,
    bytes_stored=1 << 39,
    chunks=7,
    streams=4,
    codec="zstd",
    streamed=False,
    fallback_reason="it has a terminal",
    containers=("web", "sidecar"),
    platform="debian/x86_64",
    cuda_seconds=0.125,
)
RESTORED = RestoreOutcome(
    "file:///srv/5f3d", 2.5, {"restore": 2.0}, 10, 5, (RestoredMember("web", "web-2", 4242),)
)


def event(state: State, **more: object) -> Event:
    fields = {"action_id": "a-1", "sequence": 3, "state": state, "time": NOW}
    return Event(**{"type": ActionType.CHECKPOINT, **fields, **more})  # type: ignore[arg-type]


EVENTS = {
    "accepted": event(State.INITIALIZED, pod=PodRef("u", "default", "web")),
    "progress": event(State.PROCESSING, progress=Progress("dump", 10, 5, 0, 2.5)),
    "captured": event(State.CHECKPOINT_CREATED, checkpoint=OUTCOME),
    "ready": event(State.READY, checkpoint=OUTCOME),
    "restored": event(State.READY, type=ActionType.RESTORE, restore=RESTORED),
    "error": event(
        State.ERROR,
        failure=Failure("x", "it broke", "as before", "mend it", "f", "log", {"n": 1.0}),
    ),
}


@pytest.mark.parametrize("name", EVENTS)
def test_events_survive_the_wire(name: str) -> None:
    data = to_json(event_message(EVENTS[name], cluster="c", node="n"))
    assert event_from(from_json(data, pb.ActionEvent())) == EVENTS[name]


def test_json_is_for_people_with_any_client() -> None:
    found = json.loads(to_json(event_message(EVENTS["ready"], cluster="c", node="n")))
    assert found["state"] == "ready"
    assert found["type"] == "checkpoint_pod"
    assert found["time"] == "2026-11-24T03:00:00.250Z"
    assert found["checkpoint"]["frozenSeconds"] == 0.25
    assert (found["cluster"], found["node"]) == ("c", "n")


def test_a_failure_is_the_error_that_it_came_from() -> None:
    failure = Failure.of(DumpFailed("container 'web'", "CRIU was killed", "last line"))
    assert failure.code == "dump_failed"
    assert "CRIU was killed" in failure.message
    assert failure.state == DumpFailed.state
    assert failure.log_tail == "last line"
    assert "log_tail" not in failure.details
    assert failure.field == ""


def test_a_failure_names_the_field_at_fault() -> None:
    assert Failure.of(InvalidArgument("overrides.streams", "too many")).field == "overrides.streams"


def test_the_last_state_is_known() -> None:
    assert {state for state in State if state.is_terminal} == {State.READY, State.ERROR}


def test_phases_are_told_in_the_order_in_which_they_come() -> None:
    phases = dict.fromkeys(("unaccounted", "commit", "warp", "dump", "prepare"), 0.5)
    told = event_message(
        event(State.READY, checkpoint=replace(OUTCOME, phases=phases)), cluster="c", node="n"
    )
    outcome = event_from(told).checkpoint
    assert outcome is not None
    assert list(outcome.phases) == ["prepare", "dump", "commit", "warp", "unaccounted"]
