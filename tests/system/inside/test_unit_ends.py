"""The daemon ends in mid-action, with a container frozen: systemd and the next start clean up."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress

import pytest

from bench.reports import Counter, wait_until
from bench.runc import Container
from tests.integration.aftermath import assert_unharmed, is_frozen
from tests.system.inside.node import (
    HELD,
    PATIENCE,
    UNIT,
    Node,
    checkpoints,
    counting,
    held_criu,
    journal,
    operations,
    prop,
    systemctl,
)

pytestmark = pytest.mark.timeout(1200)


async def interrupted(node: Node, action_id: str, **directives: str) -> Container:
    """A container whose checkpoint is held at its end: everything read, tasks still frozen."""
    node.use_criu(held_criu(), **directives)
    container = counting()
    await node.begin(action_id, container)
    wait_until(HELD.reached, "the end of the dump", timeout=PATIENCE)
    return container


def stands_still(container: Container) -> bool:
    """Whether none of its tasks runs: frozen by its cgroup or stopped by CRIU."""
    report = container.report("counter")
    before = report.read(Counter.TICKS)
    with suppress(Exception):
        report.wait_beyond(Counter.TICKS, before, timeout=3)
        return False
    return True


async def assert_cleaned_up(node: Node, container: Container, action_id: str, code: str) -> None:
    """Its failure is told, the container is unharmed, and nothing is left of the checkpoint."""
    action = await node.outcome(action_id)
    assert action.event.failure is not None
    assert action.event.failure.code == code
    wait_until(lambda: not operations(), "everything being cleaned up", timeout=PATIENCE)
    assert_unharmed(container)
    assert checkpoints() == []


@pytest.mark.parametrize("how", ["SIGKILL", "watchdog"])
async def test_killed(node: Node, how: str) -> None:
    action_id = f"killed-by-{how}"
    container = await interrupted(node, action_id, WatchdogSec="20" if how == "watchdog" else "600")
    assert stands_still(container)
    pid, restarts = node.pid, node.restarts
    number = signal.SIGSTOP if how == "watchdog" else signal.SIGKILL
    os.kill(pid, number)
    wait_until(_ended(pid), "systemd or the signal ending it", timeout=PATIENCE)
    HELD.release()
    await node.wait_restarted(pid)
    assert node.restarts == restarts + 1
    await assert_cleaned_up(node, container, action_id, "agent_restarted")


def _ended(pid: int) -> Callable[[], bool]:
    return lambda: prop("MainPID") != str(pid)


async def test_execstoppost_alone_thaws(node: Node) -> None:
    """Nobody but systemd helps between the daemon's end and its next start."""
    action_id = "frozen"
    container = await interrupted(node, action_id, Restart="no")
    pid = node.pid
    os.kill(pid, signal.SIGKILL)
    HELD.release()
    wait_until(lambda: prop("ActiveState") == "failed", "ExecStopPost ending", timeout=PATIENCE)
    assert prop("Result") == "signal"
    assert not is_frozen(container)
    assert_unharmed(container)
    systemctl("reset-failed", UNIT)
    node.start()
    await assert_cleaned_up(node, container, action_id, "agent_restarted")


async def test_stopped(node: Node) -> None:
    """`systemctl stop` with a checkpoint that does not come to its end in time."""
    action_id = "stopped"
    container = await interrupted(node, action_id, Environment="CHECKPOINT_AGENT_STOP_SECONDS=1")
    systemctl("stop", "--no-block", UNIT)
    rolling_back = "rolling back what still runs"
    wait_until(lambda: rolling_back in journal(), rolling_back, timeout=PATIENCE)
    HELD.release()
    wait_until(lambda: prop("ActiveState") == "inactive", "the stop", timeout=PATIENCE)
    assert prop("Result") == "success"
    assert_unharmed(container)
    node.start()
    await assert_cleaned_up(node, container, action_id, "agent_stopping")
