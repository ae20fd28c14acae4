"""How long a drain has, while it is told of more and of less."""

from __future__ import annotations

import asyncio

import pytest

from agent.drain.deadline import Deadline


def now() -> float:
    """By the event loop's clock."""
    return asyncio.get_running_loop().time()


async def test_what_is_told_replaces_what_was_assumed_and_later_only_what_is_less() -> None:
    deadline = Deadline(0.5, told=False)
    deadline.tell(now() + 3600.0)
    deadline.tell(now() + 7200.0)
    await asyncio.sleep(0.7)
    assert not deadline.halted.is_set()
    assert 3000.0 < deadline.left <= 3600.0
    deadline.tell(now())
    async with asyncio.timeout(20):
        await deadline.over.wait()
    assert deadline.halted.is_set()
    assert deadline.left == 0.0


@pytest.mark.parametrize("told", [True, False])
async def test_what_was_told_first_is_not_put_off(told: bool) -> None:
    deadline = Deadline(3600.0, told=told)
    deadline.tell(now() + 7200.0)
    assert (deadline.left <= 3600.0) == told
    deadline.close()
