"""A thread for work that must not wait until somebody else's is done."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

T = TypeVar("T")


async def in_own_thread(work: Callable[[], T]) -> T:
    """Run ``work`` as ``asyncio.to_thread`` does, in a thread that is made for it (0.1 ms).

    The threads that all share are so many, and each may be waiting for a store that hangs: whoever
    has tasks frozen would wait behind them. Cancelled, it returns, and the work goes on.
    """
    call = partial(contextvars.copy_context().run, work)
    executor = ThreadPoolExecutor(1, thread_name_prefix="own")
    try:
        return await asyncio.get_running_loop().run_in_executor(executor, call)
    finally:
        executor.shutdown(wait=False)
