"""Actions that name a pid: of the process that had it when they were accepted, or of none."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime

import psutil
import pytest

from agent.actions import Executor
from agent.actions.book import Book
from agent.messages.model import (
    ActionRequest,
    ActionType,
    CheckpointSpec,
    Event,
    Failure,
    State,
)
from agent.targets import ProcessTarget
from bench.bundle import COUNTER
from tests.integration.executors import checkpoint_of, executing
from tests.integration.lab import Lab
from tests.integration.trees import Tree, started_tree
from tests.pids import process_with
from tests.waiting import eventually_async

pytestmark = [pytest.mark.root, pytest.mark.criu]


@pytest.fixture
def tree(lab: Lab) -> Iterator[Tree]:
    with started_tree(lab.directory, COUNTER) as made:
        yield made


def request(pid: int) -> ActionRequest:
    """A checkpoint of a process."""
    return ActionRequest("p", CheckpointSpec(ProcessTarget(pid)))


def accepted(lab: Lab, pid: int) -> None:
    """A journal whose agent died before the action's turn came."""
    book = Book(lab.state_dir / "actions.db", cluster="", node="")
    made = request(pid)
    event = Event("p", 0, State.INITIALIZED, ActionType.CHECKPOINT, datetime.now(UTC))
    with book.transaction(durable=True):
        book.accept(made, event)
    book.close()


async def failure_of(executor: Executor) -> Failure:
    """Why it was refused."""
    failure = (await executor.wait("p")).event.failure
    assert failure is not None
    return failure


def rewritten(lab: Lab, process: str | None) -> None:
    """Put something else in the place of what was noted."""
    with contextlib.closing(sqlite3.connect(lab.state_dir / "actions.db")) as database:
        database.execute("UPDATE actions SET process = ?", (process,))
        database.commit()


def noted(lab: Lab) -> dict[str, object]:
    """What was noted of the process."""
    with contextlib.closing(sqlite3.connect(lab.state_dir / "actions.db")) as database:
        (text,) = database.execute("SELECT process FROM actions").fetchone()
    return dict(json.loads(text))


async def test_its_process_ends_while_it_waits(lab: Lab, tree: Tree) -> None:
    criu, hooked = lab.hook("pre-dump")
    container = lab.runc.start(lab.runc.build(COUNTER))
    async with executing(hooked, concurrency=1) as executor:
        await executor.submit(checkpoint_of(container))
        await eventually_async(criu.reached, "the first one dumping")
        await executor.submit(request(tree.pid))
        tree.kill()
        with process_with(tree.pid) as other:
            criu.release()
            failure = await failure_of(executor)
            assert other.status() == psutil.STATUS_SLEEPING
        assert failure.code == "target_not_found"
        assert "another one has its pid" in failure.message
        assert (await executor.wait("a")).state is State.READY
        assert len(lab.store.directories()) == 1


async def test_its_process_ends_with_its_agent(lab: Lab, tree: Tree) -> None:
    accepted(lab, tree.pid)
    tree.kill()
    with process_with(tree.pid):
        async with executing(lab) as executor:
            assert (await failure_of(executor)).code == "target_not_found"
    assert lab.stored() == []


async def test_after_the_machine_was_restarted(lab: Lab, tree: Tree) -> None:
    """Even one that was started at the very same moment."""
    accepted(lab, tree.pid)
    rewritten(lab, json.dumps({**noted(lab), "boot": "another"}))
    async with executing(lab) as executor:
        assert (await failure_of(executor)).code == "target_not_found"
    assert lab.stored() == []


@pytest.mark.parametrize("of_old_agent", [False, True])
async def test_one_that_still_runs(lab: Lab, tree: Tree, of_old_agent: bool) -> None:
    """Agents of older versions have noted nothing."""
    accepted(lab, tree.pid)
    if of_old_agent:
        rewritten(lab, None)
    async with executing(lab) as executor:
        assert (await executor.wait("p")).state is State.READY
