"""Threads for what is looked up when a container asks, apart from those that thaw.

A store that hangs keeps its threads, also of whoever has given up waiting. Were they the event
loop's own, a wave of 32 containers would leave none to a checkpoint that waits for its last byte
with a pod frozen.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, ParamSpec, TypeVar

# Lookups in stores at a time. Those of names read with eight threads each, but share the reading.
_STORES: Final = 16

# The same of bundles and records. They take milliseconds, unless a pod's /etc/hostname lies on a
# file system whose server is gone.
_NODE: Final = 8

P = ParamSpec("P")
T = TypeVar("T")


class Lookups:
    """What is given up before it has begun is never begun."""

    def __init__(self) -> None:
        self._stores = ThreadPoolExecutor(_STORES, thread_name_prefix="lookup")
        self._node = ThreadPoolExecutor(_NODE, thread_name_prefix="bundle")

    async def in_store(self, look: Callable[P, T], *args: P.args, **named: P.kwargs) -> T:
        """What ``look`` returns, which reads from a store or asks the Actions API."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._stores, partial(look, *args, **named))

    async def on_node(self, look: Callable[P, T], *args: P.args, **named: P.kwargs) -> T:
        """What ``look`` returns, which reads files of this node. No store holds it up."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._node, partial(look, *args, **named))

    def close(self) -> None:
        """Begin nothing more. What hangs ends by itself, and holds nothing up."""
        for pool in (self._stores, self._node):
            pool.shutdown(wait=False, cancel_futures=True)
