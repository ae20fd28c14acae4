"""Work that is not left half done: cancellation is heard, but only afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


async def to_the_end(work: Awaitable[T]) -> T:
    """Wait for ``work`` however often the waiting is cancelled; what was cancelled says so then.

    ``asyncio.shield`` alone keeps the work going but returns at once, and whoever relies on the
    work being done (a child reaped, a cgroup thawed) goes on without it.
    """
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        if not task.cancelled():
            task.exception()  # looked at, so that asyncio does not report it as lost
        raise cancelled
    return task.result()
