"""The slow way, where CRIU cannot stream: images to files first, from there into the store.

When the subject is to be stopped it is frozen for all of it and killed only after the commit: CRIU
itself would kill it before anything is durable.
"""

from __future__ import annotations

import asyncio
import contextlib
import time

from agent.capture.buffers import Closed
from agent.checkpoint.dump import dump
from agent.checkpoint.job import BeforeThaw, Job, read_stats
from agent.errors import DumpFailed
from agent.host import criu, runc
from agent.operation.freeze import frozen
from agent.targets import RuncTarget


class PlainDump:
    """One dump of a container through files."""

    def __init__(self, job: Job, before_thaw: BeforeThaw, reason: str) -> None:
        self._job, self._before_thaw, self._reason = job, before_thaw, reason

    async def run(self) -> float:
        """Dump; the seconds that the subject was frozen."""
        job, freezer = self._job, self._job.subject.freezer
        if lost := criu.unknown_to_runc(job.request.options):
            reason = f"{' and '.join(lost)} cannot be passed on, because {self._reason}"
            raise DumpFailed(str(job.subject.target), reason)
        started = time.monotonic()
        with contextlib.ExitStack() as stack:
            if job.request.stop:
                if freezer is None:
                    raise DumpFailed(str(job.subject.target), "it has no cgroup that can be frozen")
                try:
                    stack.enter_context(frozen(freezer))
                except TimeoutError as error:
                    raise DumpFailed(str(job.subject.target), str(error)) from error
            with job.phases.measure("dump"):
                await self._dump()
            with job.phases.measure("drain"):
                await self._import()
            await self._before_thaw(time.monotonic() - started, self._reason)
            if job.request.stop:
                await self._kill()
        stats = read_stats(job.operation)
        if job.request.stop or stats is None:
            return time.monotonic() - started
        return stats.freezing + stats.frozen

    async def _dump(self) -> None:
        job = self._job
        for socket in job.operation.images.glob("*.sock"):
            socket.unlink()
        # Nothing reads along, so there is nothing to hang up.
        await dump(job, leave_running=True, hang_up=lambda: None)

    async def _import(self) -> None:
        job = self._job
        try:
            await asyncio.to_thread(job.images.import_directory, job.operation.images)
        except Closed:
            # When storage failed first, that it takes nothing more is only its echo.
            job.pipeline.raise_failure()
            raise

    async def _kill(self) -> None:
        """What CRIU does at the end of a dump that does not leave the container running."""
        target = self._job.subject.target
        assert isinstance(target, RuncTarget)  # noqa: S101 - processes have no RPC to fall back to
        await runc.delete(self._job.tools, target)
