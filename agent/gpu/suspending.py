"""A pod without its GPUs, for as long as a dump takes: what it has on them lies in its memory then.

Every rank is locked before any is checkpointed: one that waits for a message of another that stands
still could not be locked any more. Nothing is frozen yet meanwhile, because the driver has the
process itself copy its memory. (NVIDIA/cuda-checkpoint, README; the order of ranks as in CRIU's own
plug-in.)
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Final

from agent.gpu.finding import GpuProcess
from agent.gpu.resuming import COPY_SECONDS, resume
from agent.host.cuda import Cuda, CudaFailed
from agent.host.shield import to_the_end
from agent.report import Phases

# Seconds that work which was already given to a GPU gets to end. CRIU's plug-in gives as long.
LOCK_SECONDS: Final = 10.0

# Seconds for which a driver that did not answer is watched for what it still does.
LATE_SECONDS: Final = 3.0


class Suspension:
    """Takes processes off their GPUs in a block, and brings them back at its end, whatever happens.

    Attributes:
        stays: set in the block when all have ended and nothing is to be brought back.
        seconds: that it has taken until now, the block not included.
        problem: why one could not be brought back; it waits for whoever tries again. Also set when
            the block was never entered.
    """

    def __init__(
        self,
        cuda: Cuda,
        processes: Sequence[GpuProcess],
        phases: Phases,
        *,
        lock_seconds: float = LOCK_SECONDS,
    ) -> None:
        self.stays = False
        self.seconds = 0.0
        self.problem: CudaFailed | None = None
        self._cuda, self._processes, self._phases = cuda, processes, phases
        self._lock_seconds = lock_seconds
        # Of some call nobody knows what has become of it, or will yet.
        self._is_unanswered = False

    async def __aenter__(self) -> Suspension:
        """Raises CudaFailed: the driver could not take them off."""
        if self._processes:
            try:
                await self._take_off()
            except BaseException:
                await to_the_end(self._undo())
                raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._processes and not self.stays:
            await to_the_end(self._bring_back())

    async def _take_off(self) -> None:
        cuda = self._cuda
        with self._measured("cuda_lock"):
            await self._all(lambda each: cuda.lock(each.pid, self._lock_seconds))
        with self._measured("cuda_checkpoint"):
            await self._all(lambda each: cuda.checkpoint(each.pid, COPY_SECONDS))

    async def _bring_back(self) -> None:
        with self._measured("cuda_restore"):
            # Noted in here, where being cancelled does not reach: nobody would know of it.
            try:
                await resume(self._cuda, self._processes)
            except CudaFailed as error:
                self.problem = error

    async def _undo(self) -> None:
        await self._bring_back()
        # A lock that nobody waits for any more may come about yet, with nobody to lift it.
        until = time.monotonic() + (LATE_SECONDS if self._is_unanswered else 0)
        while self.problem is None and time.monotonic() < until:
            await asyncio.sleep(LATE_SECONDS / 10)
            await self._bring_back()

    async def _all(self, call: Callable[[GpuProcess], Coroutine[None, None, None]]) -> None:
        """All at once, and all to their end: none is left in the middle because of another."""
        calls = [self._noted(call(each)) for each in self._processes]
        results = await to_the_end(asyncio.gather(*calls, return_exceptions=True))
        failures = [each for each in results if isinstance(each, BaseException)]
        if failures:
            raise failures[0]

    async def _noted(self, call: Coroutine[None, None, None]) -> None:
        """Remember a call that is not answered, also where its failure is not what is raised."""
        try:
            await call
        except CudaFailed as error:
            self._is_unanswered |= not error.answered
            raise

    @contextmanager
    def _measured(self, phase: str) -> Iterator[None]:
        began = time.monotonic()
        try:
            yield
        finally:
            self.seconds += time.monotonic() - began
            self._phases.add(phase, time.monotonic() - began)
