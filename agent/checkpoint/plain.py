"""The slow way, where CRIU cannot stream: images to files first, from there into the store.

When the subject is to be stopped it is frozen for all of it and killed only after the commit: CRIU
itself would kill it before anything is durable.
"""

from __future__ import annotations

import contextlib
import time

from agent.checkpoint.copying import copy_in_thread
from agent.checkpoint.dump import dump
from agent.checkpoint.job import BeforeThaw, Member
from agent.errors import DumpFailed
from agent.host import criu, runc
from agent.operation.freeze import CannotFreeze, frozen
from agent.targets import RuncTarget


class PlainDump:
    """One dump of a container through files."""

    def __init__(self, member: Member, reason: str, before_thaw: BeforeThaw, *, stop: bool) -> None:
        """``reason`` is why it is not streamed."""
        self._member, self._reason = member, reason
        self._before_thaw, self._stop = before_thaw, stop

    async def run(self) -> float:
        """Dump; the seconds that the subject was frozen."""
        member, freezer = self._member, self._member.subject.freezer
        if (level := member.job.request.options.log_level) != criu.EVERYTHING:
            # runc asks for everything, and what it asks counts for more than CRIU's configuration.
            reason = f"log level {level} cannot be passed on, because {self._reason}"
            raise DumpFailed(str(member), reason)
        started = time.monotonic()
        async with contextlib.AsyncExitStack() as stack:
            if self._stop:
                if freezer is None:
                    reason = "it has no cgroup that can be frozen"
                    raise DumpFailed(str(member), reason)
                try:
                    await stack.enter_async_context(frozen([freezer]))
                except CannotFreeze as error:
                    raise DumpFailed(str(member), str(error)) from error
                member.job.limit.begin()
            with member.phases.measure("dump"):
                await self._dump()
            with member.phases.measure("drain"):
                await self._import()
            await self._before_thaw(time.monotonic() - started, self._reason)
            if self._stop:
                await kill(member)
        stats = member.stats()
        if self._stop or stats is None:
            return time.monotonic() - started
        return stats.freezing + stats.frozen

    async def _dump(self) -> None:
        for socket in self._member.place.images.glob("*.sock"):
            socket.unlink()
        await dump(self._member, leave_running=True, hang_up=None)
        self._member.job.pipeline.raise_failure()

    async def _import(self) -> None:
        member = self._member
        directory = member.place.images
        await copy_in_thread(member.job.pipeline, lambda: member.images.import_directory(directory))


async def kill(member: Member) -> None:
    """What CRIU does at the end of a dump that does not leave the container running."""
    target = member.subject.target
    assert isinstance(target, RuncTarget)  # noqa: S101 - of processes nothing is frozen by us
    await runc.delete(member.job.tools, target)
