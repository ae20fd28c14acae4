"""Rows and errors as the contract's bodies."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from starlette.responses import JSONResponse

from agent.api import errors
from agent.api.answers import NIL, action, api_error, detail, is_uuid, iso, refusal, why
from agent.api.database.tables import TransitionRow
from agent.errors import (
    AgentError,
    BrokerFailed,
    CheckpointNotFound,
    InvalidArgument,
    PodAmbiguous,
)
from tests.api_rows import row

ID = "11111111-2222-4333-8444-555555555555"


def body(answer: JSONResponse) -> dict[str, object]:
    found = json.loads(bytes(answer.body))
    assert isinstance(found, dict)
    assert found.keys() == {"message", "code", "details"}
    assert found["code"] == str(answer.status_code)
    return found


def step(sequence: int, state: str, time: int = 0) -> TransitionRow:
    return TransitionRow(action_id=ID, sequence=sequence, state=state, time=time)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InvalidArgument("streams", "too many"), 400),
        (PodAmbiguous("web", "a, b"), 400),
        (errors.NoCheckpointOfName("x"), 400),
        (errors.Unauthenticated("a token is needed"), 401),
        (errors.Forbidden("no"), 403),
        (errors.NotCheckpointable("web"), 404),
        (errors.UnknownAction("x"), 404),
        (errors.NoActionOfPod("x"), 404),
        (errors.NoSuchPage("/x"), 404),
        (errors.TooSlow(30), 408),
        (errors.TooBig(10), 413),
        (errors.TooFast(0.5), 429),
        (errors.DatabaseFailed("gone"), 500),
        (errors.EventStreamFailed("gone"), 500),
        (errors.NoNode("c"), 500),
        (BrokerFailed("gone"), 500),
        # Of whoever did not translate it.
        (CheckpointNotFound("memory:/x"), 500),
        (AgentError(), 500),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, AgentError) else "",
)
def test_every_error_has_its_status(error: AgentError, status: int) -> None:
    answer = refusal(error)
    assert answer.status_code == status
    found = body(answer)
    assert found["message"] == str(error)
    details = found["details"]
    assert isinstance(details, dict)
    assert {"code", "state", "hint"} <= details.keys()


def test_an_error_names_the_field_that_is_at_fault() -> None:
    details = body(refusal(InvalidArgument("overrides.streams", "too many")))["details"]
    assert isinstance(details, dict)
    assert (details["argument"], details["reason"]) == ("overrides.streams", "too many")


def test_who_is_not_known_is_told_how_to_be() -> None:
    answer = refusal(errors.Unauthenticated("a token is needed"))
    assert answer.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize(("seconds", "header"), [(0.01, "1"), (0.99, "1"), (1.0, "2"), (7.5, "8")])
def test_who_is_too_fast_is_told_when_to_come_again(seconds: float, header: str) -> None:
    """In whole seconds, and never too early."""
    assert refusal(errors.TooFast(seconds)).headers["Retry-After"] == header


def test_an_answer_of_one_s_own() -> None:
    answer = api_error(405, "Method Not Allowed", None, {"Allow": "GET"})
    assert body(answer)["message"] == "Method Not Allowed"
    assert answer.headers["Allow"] == "GET"


def test_an_action_that_was_just_asked_for() -> None:
    shown = action(row(action_id=ID, created=1_767_268_800_000_001))
    assert shown.model_dump(exclude={"details"}) == {
        "action_id": ID,
        "action_timestamp": "2026-01-01T12:00:00.000001Z",
        "checkpoint_completed_timestamp": None,
        # The contract wants one where there is none yet.
        "checkpoint_id": NIL,
        "gpu": "",
        "node_name": "node-a",
        "platform": "",
        "reason": None,
        "status": "initialized",
        "total_duration": None,
        "total_io": None,
        "type": "checkpoint_pod",
    }
    assert shown.details == {
        "cluster": "test",
        "pod": None,
        "kind": None,
        "name": None,
        "request": {},
        "progress": None,
        "frozen_seconds": None,
        "bytes_raw": None,
        "bytes_stored": None,
        "path": None,
        "restored_from": None,
        "error": None,
    }


def test_a_checkpoint_s_id_that_is_no_uuid_is_none_to_the_contract() -> None:
    assert action(row(checkpoint_id="web-20260101")).checkpoint_id == NIL
    assert action(row(checkpoint_id=ID)).checkpoint_id == ID


def test_sizes_and_times_are_told_of_what_is_over() -> None:
    outcome = {"wall_seconds": 1.5, "bytes_raw": 10, "bytes_stored": 5, "phases": []}
    created = action(row(state="checkpoint_created", outcome=outcome))
    assert (created.total_duration, created.total_io) == (None, None)
    assert created.details["bytes_raw"] == 10
    ready = action(row(state="ready", outcome=outcome))
    assert (ready.total_duration, ready.total_io) == (1_500_000_000, 5)


def test_a_timeline_begins_with_the_beginning() -> None:
    made = row(created=5)
    assert [each.state for each in detail(made, []).timeline] == ["initialized"]
    shown = detail(made, [step(2, "processing", 7)])
    assert [(each.sequence, each.state) for each in shown.timeline] == [
        (-1, "initialized"), (2, "processing"),
    ]  # fmt: skip
    shown = detail(made, [step(1, "initialized", 6), step(2, "processing", 7)])
    assert [each.sequence for each in shown.timeline] == [1, 2]


def test_phases_are_in_order_and_uploads_are_there() -> None:
    outcome = {
        "wall_seconds": 1.0,
        "bytes_raw": 1,
        "bytes_stored": 1,
        "containers": ["b", "a"],
        "phases": [["z", 1.0], ["a", 2.0], ["m", 3.0]],
    }
    made = row(state="ready", outcome=outcome, upload={"pod_spec": {"x": 1}})
    shown = detail(made, [])
    assert list(shown.phases) == ["z", "a", "m"]
    assert shown.outcome is not None
    assert list(shown.outcome["phases"]) == ["z", "a", "m"]
    assert shown.containers == ["b", "a"]
    assert (shown.pod_spec, shown.pod_metadata_spec) == ({"x": 1}, None)


def test_why_an_action_has_failed() -> None:
    failure = {"message": "it is full", "state": "nothing was stored", "hint": "empty it"}
    assert why(row(state="error", failure=failure)) == "it is full; nothing was stored; empty it"
    assert why(row(state="error", failure={"message": "", "code": "x"})) == "x"
    assert why(row(state="error", failure=None)) is None
    # A failure that something came of after all.
    assert why(row(state="ready", failure=failure)) is None


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        (ID, True),
        (NIL, True),
        (ID.upper(), ID.upper() == ID),
        ("AAAAAAAA-2222-4333-8444-555555555555", False),
        (f"{{{ID}}}", False),
        (f"urn:uuid:{ID}", False),
        (ID.replace("-", ""), False),
        (f"{ID}\n", False),
        ("", False),
        ("\0", False),
    ],
)
def test_uuids_are_written_in_one_way(text: str, is_one: bool) -> None:
    assert is_uuid(text) == is_one


@pytest.mark.parametrize(
    "time",
    [
        datetime(1, 1, 1, tzinfo=UTC),
        datetime(1969, 12, 31, 23, 59, 59, 1, UTC),
        datetime(2026, 7, 1, 1, 2, 3, 123_457, UTC),
        datetime(9999, 12, 31, 23, 59, 59, 999_999, UTC),
    ],
)
def test_times_are_exact(time: datetime) -> None:
    since = time - datetime(1970, 1, 1, tzinfo=UTC)
    micros = (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
    assert iso(micros) == time.isoformat().replace("+00:00", "Z")
