"""What the journal, the store and what runs tell of an action whose agent died in the middle."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace as changed
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent.actions import Engine, Executor, PodRestores
from agent.actions.book import Book
from agent.actions.rows import Attempt
from agent.actions.schema import STEPS
from agent.config import Tools
from agent.host.boot import Moment
from agent.manifest import MANIFEST, to_bytes
from agent.messages.model import (
    Action,
    ActionRequest,
    CheckpointSpec,
    Event,
    RestoreSpec,
    State,
)
from agent.metrics import Metrics
from agent.store.file import FileStore
from agent.targets import RuncTarget
from tests.checkpoints import ID, replace, write_checkpoint
from tests.scripted_executors import settings, states
from tests.waiting import PATIENCE

pytestmark = pytest.mark.root

CHECKPOINT = ActionRequest("a", CheckpointSpec(RuncTarget("web")))

# What a wall clock may have shown at the acceptance.
CLOCKS = (datetime(1990, 1, 1, tzinfo=UTC), datetime(2099, 1, 1, tzinfo=UTC))


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path / "store")


@contextmanager
def process() -> Iterator[int]:
    """One that runs, and began a moment ago."""
    with subprocess.Popen(["sleep", "600"]) as made:
        # More than the tick of 10 ms in which it began.
        time.sleep(0.03)
        try:
            yield made.pid
        finally:
            made.kill()


def of_process(store: FileStore, pid: int) -> ActionRequest:
    """A restore of a stored process that had this pid."""
    manifest = write_checkpoint(store, {"core-1.img": b"x"})
    member = manifest.members[0].model_copy(update={"kind": "process", "pid": pid})
    content = to_bytes(manifest.model_copy(update={"members": [member]}))
    replace(store, f"{ID}/{MANIFEST}", content)
    return ActionRequest("a", RestoreSpec(f"{store.url}/{ID}"))


def left_open(
    directory: Path,
    store: FileStore,
    request: ActionRequest,
    *,
    begun: Moment | None = None,
    accepted: datetime = CLOCKS[0],
) -> None:
    """The journal of an agent that died after it had begun an action."""
    node = settings(directory).node
    book = Book(directory / "actions.db", cluster=node.cluster, node=node.name)
    event = Event("a", 0, State.INITIALIZED, request.type, accepted)
    book.accept(request, event)
    book.attempt("a", Attempt(ID, store.url), begun or Moment.now())
    book.advance(changed(event, state=State.PROCESSING))
    book.close()


@asynccontextmanager
async def next_agent(directory: Path, *, patience: float = 60.0) -> AsyncIterator[Executor]:
    """The one that finds out."""
    chosen = settings(directory, staging_bytes=0)
    engine = Engine(chosen, Tools(Path("/bin/false"), Path("/bin/false")), PodRestores())
    made = Executor(chosen, engine, Metrics("test"), patience=patience)
    await made.start()
    try:
        yield made
    finally:
        await made.stop(0)
        await made.close()


async def end_of(directory: Path, *, patience: float = 60.0) -> Action:
    """What becomes of the action, which is said once."""
    async with next_agent(directory, patience=patience) as made:
        async with asyncio.timeout(20):
            action = await made.wait("a")
        said = await states(made)
    assert [state for state in said if state.is_terminal] == [action.state]
    return action


def code_of(action: Action) -> str | None:
    return action.event.failure.code if action.event.failure else None


async def test_what_a_store_does_not_have_is_undone(tmp_path: Path, store: FileStore) -> None:
    store.check_writable()
    left_open(tmp_path, store, CHECKPOINT)
    assert code_of(await end_of(tmp_path)) == "agent_restarted"


async def test_a_store_that_is_gone_is_an_end_that_says_where_to_look(
    tmp_path: Path, store: FileStore
) -> None:
    """Its directory is not there, as when a file system is not mounted."""
    left_open(tmp_path, store, CHECKPOINT)
    action = await end_of(tmp_path, patience=0.5)
    failure = action.event.failure
    assert failure is not None
    assert failure.code == "checkpoint_unknown"
    assert f"whether {store.url}/{ID} is stored is unknown" in failure.message
    assert failure.details["path"] == f"{store.url}/{ID}"
    assert failure.details["store"] == store.url
    assert str(failure.details["reason"]).startswith("read ")
    assert "list" in failure.hint
    assert "verify" in failure.hint
    # The store is back, with all of the checkpoint: an end remains an end.
    write_checkpoint(store, {"core-1.img": b"x"})
    assert await end_of(tmp_path) == action


async def test_a_store_that_comes_back_in_time_tells(tmp_path: Path, store: FileStore) -> None:
    left_open(tmp_path, store, CHECKPOINT)
    async with next_agent(tmp_path) as made:
        await asyncio.sleep(0.1)
        assert (await made.get("a")).state is State.PROCESSING
        write_checkpoint(store, {"core-1.img": b"x"})
        async with asyncio.timeout(20):
            assert (await made.wait("a")).state is State.READY


async def test_giving_up_what_nobody_can_tell_is_answered_at_once(
    tmp_path: Path, store: FileStore
) -> None:
    left_open(tmp_path, store, CHECKPOINT)
    async with next_agent(tmp_path) as made:
        async with asyncio.timeout(PATIENCE):
            action = await made.cancel("a")
            assert await made.cancel("a") == action
        failure = action.event.failure
        assert failure is not None
        assert failure.code == "checkpoint_unknown"
        assert failure.message.endswith("given up on request")
        assert await states(made) == [State.INITIALIZED, State.PROCESSING, State.ERROR]


async def test_a_manifest_that_is_damaged_makes_nothing_ready(
    tmp_path: Path, store: FileStore
) -> None:
    write_checkpoint(store, {"core-1.img": b"x"})
    replace(store, f"{ID}/{MANIFEST}", b"{")
    left_open(tmp_path, store, CHECKPOINT)
    assert code_of(await end_of(tmp_path)) == "checkpoint_unknown"


@pytest.mark.parametrize("accepted", CLOCKS)
async def test_what_was_restored_runs_whatever_the_clock_showed(
    tmp_path: Path, store: FileStore, accepted: datetime
) -> None:
    begun = Moment.now()
    with process() as pid:
        left_open(tmp_path, store, of_process(store, pid), begun=begun, accepted=accepted)
        action = await end_of(tmp_path)
    assert action.event.restore is not None
    assert [each.pid for each in action.event.restore.members] == [pid]


@pytest.mark.parametrize("accepted", CLOCKS)
async def test_what_is_older_than_the_restore_is_not_its_whatever_the_clock_showed(
    tmp_path: Path, store: FileStore, accepted: datetime
) -> None:
    with process() as pid:
        left_open(tmp_path, store, of_process(store, pid), accepted=accepted)
        assert code_of(await end_of(tmp_path)) == "agent_restarted"


async def test_nothing_outlives_its_machine(tmp_path: Path, store: FileStore) -> None:
    """Not even the store has to be asked."""
    with process() as pid:
        request = of_process(FileStore(tmp_path / "other"), pid)
        left_open(tmp_path, store, request, begun=Moment("another boot", 0.0))
        assert code_of(await end_of(tmp_path)) == "agent_restarted"


def made_by_version_1(directory: Path) -> None:
    """Undo all but the first step of the schema."""
    database = sqlite3.connect(directory / "actions.db")
    for column in ("boot", "boot_seconds", "process"):
        database.execute(f"ALTER TABLE actions DROP COLUMN {column}")
    database.execute("PRAGMA user_version = 1")
    database.commit()
    tables = "SELECT sql FROM sqlite_schema WHERE name = 'actions'"
    (made,) = database.execute(tables).fetchone()
    database.close()
    plain = sqlite3.connect(":memory:")
    for statement in STEPS[0]:
        plain.execute(statement)
    (wanted,) = plain.execute(tables).fetchone()
    plain.close()
    assert "".join(made.split()) == "".join(wanted.split())


async def test_of_what_an_older_version_began_only_what_is_certain_is_said(
    tmp_path: Path, store: FileStore
) -> None:
    with process() as pid:
        left_open(tmp_path, store, of_process(store, pid))
        made_by_version_1(tmp_path)
        assert code_of(await end_of(tmp_path)) == "restore_unknown"


async def test_what_an_older_version_began_and_does_not_run_was_not_restored(
    tmp_path: Path, store: FileStore
) -> None:
    with process() as pid:
        request = of_process(store, pid)
    left_open(tmp_path, store, request)
    made_by_version_1(tmp_path)
    assert code_of(await end_of(tmp_path)) == "agent_restarted"


async def test_a_checkpoint_that_an_older_version_began_is_told_by_its_store(
    tmp_path: Path, store: FileStore
) -> None:
    write_checkpoint(store, {"core-1.img": b"x"})
    left_open(tmp_path, store, CHECKPOINT)
    made_by_version_1(tmp_path)
    assert (await end_of(tmp_path)).state is State.READY
