"""An agent that was killed in the middle of its actions: the next one ends all of them."""

from __future__ import annotations

import json
import sqlite3

import pytest

from agent.messages.model import State
from bench.bundle import COUNTER, memory
from bench.reports import wait_until
from bench.runc import Container
from tests.integration.aftermath import assert_unharmed
from tests.integration.executors import (
    checkpoint_of,
    events_of,
    executing,
    killed_agent,
    restore_of,
)
from tests.integration.lab import Lab
from tests.integration.trees import processes

pytestmark = [pytest.mark.root, pytest.mark.criu]


def started(lab: Lab) -> Container:
    """A container that counts and holds memory."""
    return lab.runc.start(lab.runc.build(COUNTER, memory(8)))


@pytest.mark.parametrize("hook", ["pre-dump", "post-dump"])
async def test_killed_in_a_dump_with_another_action_waiting(lab: Lab, hook: str) -> None:
    container, waiting = started(lab), started(lab)
    criu, hooked = lab.hook(hook)
    with killed_agent(hooked, container, waiting) as agent:
        wait_until(criu.reached, "the hook being reached")
        agent.kill()
        agent.wait()
    criu.release()
    # CRIU and runc notice by themselves; until they are gone, the operation is theirs.
    wait_until(lambda: not processes(str(lab.state_dir)), "everybody ending")
    async with executing(lab) as executor:
        action = await executor.wait(container.id)
        assert action.event.failure is not None
        assert action.event.failure.code == "agent_restarted"
        assert "nothing is stored" in action.event.failure.state
        assert (await executor.wait(waiting.id)).state is State.READY
        # One of each: what the dead agent had written down is sent, and the end.
        for name, end in ((container.id, State.ERROR), (waiting.id, State.READY)):
            states = [each.state for each in await events_of(executor, name)]
            assert states[0] is State.INITIALIZED
            assert [state for state in states if state.is_terminal] == [end]
        assert len(lab.store.directories()) == 1
        # It is as if nothing had been.
        await executor.submit(checkpoint_of(container, "again"))
        assert (await executor.wait("again")).state is State.READY
    assert_unharmed(container)
    assert_unharmed(waiting)
    assert lab.operations() == []


async def test_killed_between_the_commit_and_its_report(lab: Lab) -> None:
    """The manifest is there: it is a checkpoint, and a restore of it is one too."""
    container = started(lab)
    async with executing(lab) as executor:
        await executor.submit(checkpoint_of(container))
        outcome = (await executor.wait("a")).event.checkpoint
        assert outcome is not None
        container.delete()
        await executor.submit(restore_of(outcome.path))
        restored = (await executor.wait("r")).event.restore
        assert restored is not None
    _unreport(lab)
    async with executing(lab) as executor:
        found = (await executor.wait("a")).event.checkpoint
        assert found is not None
        assert (found.checkpoint_id, found.path) == (outcome.checkpoint_id, outcome.path)
        assert (found.bytes_raw, found.bytes_stored) == (outcome.bytes_raw, outcome.bytes_stored)
        assert found.containers == outcome.containers
        runs = (await executor.wait("r")).event.restore
        assert runs is not None
        assert runs.members == restored.members


async def test_a_container_that_is_older_than_the_restore_is_not_its(lab: Lab) -> None:
    container = started(lab)
    async with executing(lab) as executor:
        await executor.submit(checkpoint_of(container))
        outcome = (await executor.wait("a")).event.checkpoint
        assert outcome is not None
        # Refused, because the container is there.
        await executor.submit(restore_of(outcome.path))
        failure = (await executor.wait("r")).event.failure
        assert failure is not None
        assert failure.code == "already_exists"
    _unreport(lab, begun_later=3600.0)
    async with executing(lab) as executor:
        failure = (await executor.wait("r")).event.failure
        assert failure is not None
        assert failure.code == "agent_restarted"
    assert_unharmed(container)


def _unreport(lab: Lab, begun_later: float = 0.0) -> None:
    """The journal as an agent leaves it that dies before it can write the last states down."""
    database = sqlite3.connect(lab.state_dir / "actions.db")
    for action_id, text in database.execute("SELECT action_id, event FROM actions").fetchall():
        event = {
            key: value
            for key, value in json.loads(text).items()
            if key not in ("checkpoint", "restore", "failure")
        }
        database.execute(
            "UPDATE actions SET state = 'processing', ended = 0, event = ? WHERE action_id = ?",
            (json.dumps(event | {"state": "processing"}), action_id),
        )
    database.execute("UPDATE actions SET boot_seconds = boot_seconds + ?", (begun_later,))
    database.commit()
    database.close()
