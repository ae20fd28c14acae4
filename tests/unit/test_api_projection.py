"""Events taken over into real databases: each once, in order, never backwards."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select

from agent.api.answers import action, detail
from agent.api.database import Database, projection
from agent.api.database import actions as table
from agent.api.database.tables import ActionRow, NameRow, TransitionRow
from agent.api.schemas import ActionDetail
from agent.events import Position, StoredEvent
from agent.messages.model import ActionType, Failure, Progress, State
from agent.targets import PodRef
from tests.api_rows import BEGAN, checkpointed, restored, row, said

ID = "11111111-2222-4333-8444-555555555555"
POD = PodRef("uid-1", "default", "web")


def nobody(_cluster: str, _pod: PodRef) -> Mapping[str, str]:
    return {}


class Reader:
    """One instance that takes over events, a position for each batch."""

    def __init__(self, database: Database, holder: str = "me") -> None:
        self.database, self.holder = database, holder
        self.position = Position("", 0)

    async def take(self, *events: StoredEvent, names: projection.Names = nobody) -> bool:
        if await projection.claim(self.database, self.holder) is None:
            return False
        before = self.position
        self.position = Position("s", before.sequence + 1)
        return await projection.apply(
            self.database, self.holder, before, self.position, events, names
        )

    async def detail(self, action_id: str = ID) -> ActionDetail:
        async with self.database.read() as session:
            found = await table.get(session, action_id)
            assert found is not None
            # Neither of the two ways to show it may fail.
            action(found)
            return detail(found, await table.transitions(session, action_id))

    async def steps(self, action_id: str = ID) -> list[tuple[int, str]]:
        query = select(TransitionRow).where(TransitionRow.action_id == action_id)
        async with self.database.read() as session:
            found = await session.scalars(query.order_by(TransitionRow.sequence))
            return [(each.sequence, each.state) for each in found]

    async def put(self, *rows: ActionRow) -> None:
        async with self.database.write() as session:
            session.add_all(rows)

    async def path(self, name: str) -> str | None:
        async with self.database.read() as session:
            return await table.latest_path(session, name)


def whole(action_id: str = ID, first: int = 1) -> Sequence[StoredEvent]:
    """A checkpoint's life."""
    outcome = checkpointed(action_id)
    return (
        said(action_id, first, State.INITIALIZED, pod=POD),
        said(action_id, first + 1, State.PROCESSING, pod=POD, progress=Progress("dump", 10)),
        said(action_id, first + 2, State.CHECKPOINT_CREATED, pod=POD, checkpoint=outcome),
        said(action_id, first + 3, State.READY, pod=POD, checkpoint=outcome),
    )


@pytest.mark.parametrize(
    ("gpus", "said_of_them"),
    [((), ""), (("NVIDIA H100",), "NVIDIA H100"), (("A100", *["H100"] * 8), "A100, 8 x H100")],
)
async def test_the_gpus_of_a_checkpoint(
    database: Database, gpus: tuple[str, ...], said_of_them: str
) -> None:
    reader = Reader(database)
    await reader.put(row(action_id=ID))
    outcome = checkpointed(ID, gpus=gpus, cuda_seconds=0.25)
    await reader.take(said(ID, 3, State.READY, pod=POD, checkpoint=outcome))
    found = await reader.detail()
    assert found.gpu == said_of_them
    assert found.outcome is not None
    assert found.outcome["cuda_seconds"] == 0.25


STEPS = [(1, "initialized"), (2, "processing"), (3, "checkpoint_created"), (4, "ready")]


async def test_a_checkpoint_s_life(database: Database) -> None:
    reader = Reader(database)
    await reader.put(row(action_id=ID, names={"app": "my-app"}))
    for event, step in zip(whole(), STEPS, strict=True):
        assert await reader.take(event)
        assert (await reader.steps())[-1] == step
        assert (await reader.detail()).status == step[1]
    done = await reader.detail()
    assert await reader.steps() == STEPS
    assert done.checkpoint_completed_timestamp == "2026-01-01T12:00:04Z"
    assert (done.checkpoint_id, done.platform) == (ID, "debian-13")
    assert (done.total_duration, done.total_io) == (2_000_000_000, 1024)
    assert list(done.phases) == ["freeze", "dump", "store"]
    assert done.details["progress"]["phase"] == "dump"
    assert done.details["pod"] == {"uid": "uid-1", "namespace": "default", "name": "web"}
    # It has its name from the request, whatever the pod is called by now.
    assert await reader.path("my-app") == f"memory:/{ID}"
    assert await reader.path("default/web/app") is None


async def test_all_at_once_is_the_same_as_one_by_one(database: Database) -> None:
    reader = Reader(database)
    others = [str(uuid.uuid4()) for _ in range(100)]
    events = [event for each in others for event in whole(each)]
    # Those of one action stay in order.
    events.sort(key=lambda each: each.event.sequence if each.event else 0)
    assert await reader.take(*events)
    for each in others:
        assert await reader.steps(each) == STEPS
        assert (await reader.detail(each)).status == "ready"


async def test_twice_is_once(database: Database) -> None:
    reader = Reader(database)
    events = whole()
    await reader.take(*events, *events)
    before = await reader.detail()
    await reader.take(*events)
    await reader.take(*reversed(events))
    assert await reader.steps() == STEPS
    assert await reader.detail() == before


async def test_what_comes_late_is_too_late(database: Database) -> None:
    reader = Reader(database)
    one, two, three, four = whole()
    await reader.take(three)
    await reader.take(one, two, three)
    assert await reader.steps() == [(3, "checkpoint_created")]
    await reader.take(four, two)
    done = await reader.detail()
    assert done.status == "ready"
    assert [step.state for step in done.timeline] == [
        "initialized", "checkpoint_created", "ready",
    ]  # fmt: skip


async def test_states_never_go_backwards(database: Database) -> None:
    reader = Reader(database)
    await reader.take(*whole()[:3])
    before = await reader.detail()
    for sequence in range(10, 20):
        state = (State.PROCESSING, State.INITIALIZED)[sequence % 2]
        await reader.take(said(ID, sequence, state, progress=Progress("again")))
    after = await reader.detail()
    assert (after.status, after.details) == ("checkpoint_created", before.details)
    assert await reader.steps() == STEPS[:3]
    await reader.take(said(ID, 20, State.READY, checkpoint=checkpointed(ID)))
    assert (await reader.detail()).status == "ready"
    # Nothing comes after its end.
    await reader.take(said(ID, 21, State.PROCESSING), said(ID, 22, State.CHECKPOINT_CREATED))
    assert await reader.steps() == [*STEPS[:3], (20, "ready")]


async def test_what_was_given_up_stays_so_and_the_timeline_tells(
    database: Database,
) -> None:
    reader = Reader(database)
    await reader.take(*whole()[:2])
    async with database.write() as session:
        assert await table.give_up(session, ID, {"code": "node_lost", "message": "gone"}, seen=2)
    for sequence in range(3, 30):
        await reader.take(said(ID, sequence, State.PROCESSING, progress=Progress("dump")))
    await reader.take(*whole(first=50)[2:])
    done = await reader.detail()
    assert done.status == "error"
    assert done.details["error"]["code"] == "node_lost"
    assert done.outcome is None
    assert await reader.path("default/web/app") is None
    # A node may say for hours that it is at it: each time is not worth a row.
    assert await reader.steps() == [
        (-1, "error"), (1, "initialized"), (2, "processing"), (53, "ready"),
    ]  # fmt: skip


async def test_progress_is_no_step(database: Database) -> None:
    reader = Reader(database)
    for sequence in range(1, 6):
        progress = Progress("dump", sequence * 100, sequence * 10, 500, 7.5)
        await reader.take(said(ID, sequence, State.PROCESSING, progress=progress))
    shown = await reader.detail()
    assert await reader.steps() == [(1, "processing")]
    assert shown.details["progress"] == {
        "phase": "dump",
        "bytes_raw": 500,
        "bytes_stored": 50,
        "bytes_total": 500,
        "bytes_per_second": 7.5,
    }


async def test_an_action_that_nobody_asked_for_here(database: Database) -> None:
    reader = Reader(database)

    def names(cluster: str, pod: PodRef) -> Mapping[str, str]:
        assert (cluster, pod) == ("test", POD)
        return {"app": "its-name"}

    await reader.take(*whole(), names=names)
    shown = await reader.detail()
    assert (shown.node_name, shown.details["cluster"]) == ("node-a", "test")
    assert shown.action_timestamp == "2026-01-01T12:00:01Z"
    assert await reader.path("its-name") == f"memory:/{ID}"


async def test_a_refusal_has_number_0(database: Database) -> None:
    reader = Reader(database)
    failure = Failure("invalid_argument", "no", "s", "h", "f", "tail", {"argument": "x", "n": 1.5})
    await reader.take(said(ID, 0, State.ERROR, failure=failure))
    shown = await reader.detail()
    assert shown.status == "error"
    assert shown.details["error"] == {
        "code": "invalid_argument",
        "message": "no",
        "state": "s",
        "hint": "h",
        "field": "f",
        "log_tail": "tail",
        "details": {"argument": "x", "n": 1.5},
    }
    assert await reader.steps() == [(0, "error")]


async def test_a_restore_has_no_names(database: Database) -> None:
    reader = Reader(database)
    restore = ActionType.RESTORE
    await reader.take(
        said(ID, 1, State.INITIALIZED, type=restore),
        said(ID, 2, State.READY, type=restore, pod=POD, restore=restored("memory:/x")),
        names=lambda *_: {"app": "my-app"},
    )
    shown = await reader.detail()
    assert (shown.type, shown.status) == ("restore_pod", "ready")
    assert (shown.details["path"], shown.total_duration) == ("memory:/x", 1_500_000_000)
    assert list(shown.phases) == ["prepare", "restore"]
    async with database.read() as session:
        assert (await session.scalars(select(NameRow))).all() == []


async def test_the_latest_of_a_name_is_the_one_that_was_ready_last(database: Database) -> None:
    reader = Reader(database)
    early, late = str(uuid.uuid4()), str(uuid.uuid4())
    # It was slower to tell.
    for action_id, seconds in ((late, 20), (early, 10)):
        outcome = checkpointed(action_id, name="given", containers=("a", "b"))
        time = BEGAN + timedelta(seconds=seconds)
        ready = said(action_id, 5, State.READY, time=time, pod=POD, checkpoint=outcome)
        await reader.take(ready)
    for name in ("given", "default/web/a", "default/web/b"):
        assert await reader.path(name) == f"memory:/{late}"


async def test_times_are_kept_to_the_microsecond(database: Database) -> None:
    reader = Reader(database)
    for number in range(20):
        time = datetime(2026, 7, 1, 1, 2, 3, 123_450 + number, UTC)
        action_id = str(uuid.uuid4())
        await reader.take(said(action_id, 1, State.PROCESSING, time=time))
        shown = await reader.detail(action_id)
        assert shown.timeline[-1].time == f"2026-07-01T01:02:03.{123_450 + number}Z"
