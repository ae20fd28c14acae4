"""Nobody who is frozen waits for a thread that others hold."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import pytest

from agent.manifest import Options
from bench.bundle import COUNTER, memory
from tests.integration.aftermath import assert_unharmed, nothing_left
from tests.integration.lab import Lab
from tests.integration.moments import ring, volume
from tests.waiting import eventually_async

pytestmark = [pytest.mark.root, pytest.mark.criu]


@asynccontextmanager
async def all_threads_busy() -> AsyncIterator[None]:
    """There is one, and somebody who waits for a store has it."""
    answered = threading.Event()
    waiting = asyncio.get_running_loop().run_in_executor(None, answered.wait)
    try:
        yield
    finally:
        answered.set()
        await waiting


@pytest.fixture(autouse=True)
async def _one_thread() -> None:
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1, "asyncio"))


@pytest.mark.parametrize("stop", [False, True], ids=["leave-running", "stop"])
async def test_a_container_thaws_and_is_stored(lab: Lab, stop: bool) -> None:
    container = lab.runc.start(lab.runc.build(COUNTER, memory(8)))
    criu, held = lab.hook("pre-dump")
    work = asyncio.create_task(held.checkpoint(container, stop=stop))
    await eventually_async(lambda: criu.reached() or work.done(), "the dump")
    async with all_threads_busy():
        criu.release()
        async with asyncio.timeout(20):
            done = await work
    assert any(path.startswith(done.checkpoint_id) for path in lab.stored())
    if not stop:
        assert_unharmed(container)


async def test_a_pod_freezes_and_thaws(lab: Lab) -> None:
    files = lab.directory / "files"
    files.mkdir()
    (files / "file").write_bytes(bytes(1 << 20))
    criu, held = lab.hook("pre-dump")
    made = ring(held, 8, 8)
    work = asyncio.create_task(made.checkpoint(volumes=(volume(files),)))
    await eventually_async(lambda: criu.reached() or work.done(), "the dump")
    async with all_threads_busy():
        numbers = made.numbers()
        criu.release()
        await eventually_async(lambda: made.numbers()[0] > numbers[0] + 100, "the ring going on")
    await work
    made.assert_goes_on()


async def test_a_pod_that_is_given_up_thaws(lab: Lab) -> None:
    criu, held = lab.hook("pre-dump")
    made = ring(held, 8, 8)
    with nothing_left(lab):
        work = asyncio.create_task(made.checkpoint(options=Options(tcp_established=True)))
        await eventually_async(lambda: criu.reached() or work.done(), "the dump")
        async with all_threads_busy():
            numbers = made.numbers()
            work.cancel()
            criu.release()
            await eventually_async(
                lambda: made.numbers()[0] > numbers[0] + 100, "the ring going on"
            )
        with pytest.raises(asyncio.CancelledError):
            await work
        made.assert_goes_on()
