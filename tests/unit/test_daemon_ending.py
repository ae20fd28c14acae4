"""Why the daemon ends, and with what."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from agent.daemon import ending as module
from agent.daemon.ending import SAME_WISH, Ending


async def test_the_first_signal_asks_and_the_second_hurries(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "SAME_WISH", 3600.0)
    ending = Ending()
    ending.listen()
    os.kill(os.getpid(), signal.SIGTERM)
    async with asyncio.timeout(20):
        await ending.asked.wait()
    # By somebody who signals the process and its group.
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.sleep(0.1)
    assert not ending.hurried.is_set()
    monkeypatch.setattr(module, "SAME_WISH", 0.05)
    os.kill(os.getpid(), signal.SIGINT)
    async with asyncio.timeout(20):
        await ending.hurried.wait()
    assert ending.exit_code == 0


async def test_a_fault_is_an_end_that_is_told_from_an_ordered_one() -> None:
    ending = Ending()
    ending.fault()
    assert ending.asked.is_set()
    assert ending.exit_code == 1


async def test_the_first_signal_after_a_fault_is_in_no_hurry() -> None:
    ending = Ending()
    ending.fault()
    ending.signalled(signal.SIGTERM)
    assert not ending.hurried.is_set()
    await asyncio.sleep(SAME_WISH + 0.05)
    ending.signalled(signal.SIGTERM)
    assert ending.hurried.is_set()
    assert ending.exit_code == 1
