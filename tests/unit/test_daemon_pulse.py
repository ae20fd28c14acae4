"""A loop that hangs is told from one that goes on."""

from __future__ import annotations

import asyncio
import threading

from agent.daemon.pulse import is_alive


async def test_a_loop_that_goes_on_is_alive() -> None:
    assert await asyncio.to_thread(is_alive, asyncio.get_running_loop(), 20.0)


def test_a_loop_that_hangs_is_not_until_it_goes_on() -> None:
    loop, release = asyncio.new_event_loop(), threading.Event()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        loop.call_soon_threadsafe(release.wait)
        assert not is_alive(loop, 0.05)
        release.set()
        assert is_alive(loop, 20.0)
    finally:
        release.set()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
