"""The machine goes down in mid-action, in order or not: what the daemon makes of it afterwards."""

from __future__ import annotations

import pytest

from bench.reports import wait_until
from tests.system.inside.node import (
    HELD,
    PATIENCE,
    UNIT,
    Node,
    checkpoints,
    counting,
    held_criu,
    operations,
    prop,
    systemctl,
)

pytestmark = pytest.mark.timeout(1800)

# The machine goes down twice, and an id is the same action for ever.
REBOOT, RESET = "when-it-was-rebooted", "when-it-was-reset"


async def test_before_a_reboot() -> None:
    await _hold(REBOOT)


async def test_before_a_reset() -> None:
    await _hold(RESET)


async def _hold(action: str) -> None:
    """A checkpoint that is held, and stays so: no fixture, because nothing is to be cleaned up."""
    node = Node()
    systemctl("enable", UNIT)
    node.use_criu(held_criu())
    await node.begin(action, counting())
    wait_until(HELD.reached, "the end of the dump", timeout=PATIENCE)
    assert operations()


async def test_after_a_reboot() -> None:
    await _assert_settled(REBOOT, "agent_stopping", "agent_restarted")


async def test_after_a_reset() -> None:
    await _assert_settled(RESET, "agent_restarted")


async def _assert_settled(name: str, *codes: str) -> None:
    """It is up by itself, tells the truth about the action, and has nothing left of it."""
    node = Node()
    wait_until(lambda: prop("ActiveState") == "active", "the unit", timeout=PATIENCE)
    action = await node.outcome(name)
    assert action.event.failure is not None
    assert action.event.failure.code in codes
    wait_until(lambda: not operations(), "everything being cleaned up", timeout=PATIENCE)
    assert checkpoints() == []
    assert node.restarts == 0
