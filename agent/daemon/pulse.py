"""Whether an event loop goes on: of one that hangs, the threads would say that all is well."""

from __future__ import annotations

import asyncio


def is_alive(loop: asyncio.AbstractEventLoop, seconds: float) -> bool:
    """Whether ``loop`` does something new within that time. For another thread than the loop's."""
    answering = asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop)
    try:
        answering.result(seconds)
    except TimeoutError:
        answering.cancel()
        return False
    return True
