"""Putting GPU state back, from whatever a process is in the middle of.

What is done depends on what the driver says of each process and not on what was meant to be done: a
lock that was given up may have come about a second later, in a driver that was slow.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from agent.gpu.finding import GpuProcess
from agent.host.cuda import Cuda, CudaFailed, CudaState

# Seconds. Back onto a GPU go about 8 GB/s, and slower drivers were seen at 3: this is for 600 GB.
COPY_SECONDS: Final = 200.0

# Seconds for a process to become what it can be brought back from, and between two looks at it.
_PATIENCE: Final = 30.0
_LOOK: Final = 0.05


async def resume(
    cuda: Cuda, processes: Iterable[GpuProcess], devices: Mapping[str, str] | None = None
) -> None:
    """Bring all of them back to their GPUs and let them go on; one that is gone needs nothing.

    All are restored before any is unlocked: ranks that talk to each other find each other there.

    Args:
        devices: new UUIDs by old ones, for all old ones; none: the same GPUs.

    Raises:
        CudaFailed: of the first that could not be. Everything was tried with all of them.
    """
    members = list(processes)
    failures = await _each(_restore(cuda, each, devices or {}) for each in members)
    failures += await _each(_unlock(cuda, each) for each in members)
    if failures:
        raise failures[0]


async def _each(works: Iterable[Coroutine[None, None, None]]) -> list[CudaFailed]:
    """Do all of it at once; what the driver refused."""
    done = await asyncio.gather(*works, return_exceptions=True)
    for each in done:
        if isinstance(each, BaseException) and not isinstance(each, CudaFailed):
            raise each
    return [each for each in done if isinstance(each, CudaFailed)]


async def _restore(cuda: Cuda, member: GpuProcess, devices: Mapping[str, str]) -> None:
    deadline = time.monotonic() + _PATIENCE
    while await _settled(cuda, member) is CudaState.CHECKPOINTED:
        with _tolerant(deadline):
            await cuda.restore(member.pid, COPY_SECONDS, devices)


async def _unlock(cuda: Cuda, member: GpuProcess) -> None:
    deadline = time.monotonic() + _PATIENCE
    while (state := await _settled(cuda, member)) is CudaState.LOCKED:
        with _tolerant(deadline):
            await cuda.unlock(member.pid)
    if state not in (CudaState.RUNNING, None):
        raise CudaFailed("unlock", member.pid, f"it is {state}")


@contextmanager
def _tolerant(deadline: float) -> Iterator[None]:
    """A call that got no answer may have died of another process's: it is tried again."""
    try:
        yield
    except CudaFailed as error:
        if error.answered or time.monotonic() > deadline:
            raise


async def _settled(cuda: Cuda, member: GpuProcess) -> CudaState | None:
    """Where it is, once the driver knows; None when it is gone."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            state = await cuda.state(member.pid) if member.is_alive else None
        except CudaFailed:
            if time.monotonic() > deadline:
                raise
        else:
            if state not in (CudaState.CHECKPOINTING, CudaState.RESTORING):
                return state
            if time.monotonic() > deadline:
                return state
        await asyncio.sleep(_LOOK)
