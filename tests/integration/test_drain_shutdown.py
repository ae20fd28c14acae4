"""A machine that is shut down waits until the pods are taken care of, and no longer."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agent.drain.notice import Notice
from agent.drain.shutdown import ShutdownSource
from tests.servers.logind import AVAILABLE, Logind, logind_server
from tests.waiting import eventually_async

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not AVAILABLE, reason="busctl and dbus-daemon are not there"),
]


@pytest.fixture
def logind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Logind]:
    with logind_server(tmp_path) as made:
        monkeypatch.setenv("PATH", f"{made.programs}:{os.environ['PATH']}")
        yield made


@asynccontextmanager
async def watching() -> AsyncIterator[tuple[list[Notice | None], asyncio.Event]]:
    """What the source tells, and what it waits for."""
    told: list[Notice | None] = []
    drained = asyncio.Event()

    def tell(notice: Notice | None) -> asyncio.Event:
        told.append(notice)
        return drained

    task = asyncio.create_task(ShutdownSource().watch(tell))
    try:
        yield told, drained
        assert not task.done(), task
    finally:
        task.cancel()
        await asyncio.wait({task})


async def test_a_shutdown_waits_for_the_drain_and_can_be_called_off(logind: Logind) -> None:
    async with watching() as (told, drained):
        await eventually_async(logind.is_locked, "the lock")
        assert "--what=shutdown --mode=delay" in logind.asked()
        # Again and again, as nobody can tell whether busctl listens already.
        async with asyncio.timeout(20):
            while not told:
                logind.announce(begins=True)
                await asyncio.sleep(0.1)
        assert isinstance(told[0], Notice)
        await asyncio.sleep(0.1)
        assert logind.is_locked()
        drained.set()
        await eventually_async(lambda: not logind.is_locked(), "the lock being let go of")
        logind.announce(begins=False)
        await eventually_async(lambda: told[-1] is None, "the notice being taken back")
        await eventually_async(logind.is_locked, "the lock being taken again")
    assert not logind.is_locked()


async def test_a_lock_that_is_refused_is_told_of(
    logind: Logind, caplog: pytest.LogCaptureFixture
) -> None:
    logind.refuse()
    async with watching() as (told, _):
        await eventually_async(lambda: "will not wait" in caplog.text, "the warning")
        assert told == []
