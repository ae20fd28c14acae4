"""The fast way: CRIU streams its images, and is held until all of them are copied out."""

from __future__ import annotations

import asyncio
import time

from agent.capture.buffers import Closed
from agent.capture.streamer import Capture
from agent.checkpoint.dump import dump
from agent.checkpoint.job import BeforeThaw, Member
from agent.errors import AgentError, DumpFailed
from agent.operation.control import Control


class CannotStream(Exception):
    """runc asked CRIU for something that has no twin on the command line; says what."""


class StreamedDump:
    """One streamed dump of a member."""

    def __init__(self, member: Member, before_thaw: BeforeThaw, *, stop: bool) -> None:
        self._member, self._pipeline = member, member.job.pipeline
        self._before_thaw, self._stop = before_thaw, stop
        self._drained_at = 0.0
        self._agreed = False
        self._control = Control(member.place.images, self._held, on_hook=self._reached)
        self._drained = asyncio.Event()
        tell = asyncio.get_running_loop().call_soon_threadsafe
        self._capture = Capture(
            member.place.images,
            member.images,
            self._pipeline,
            on_drained=lambda: tell(self._drained.set),
        )

    async def run(self) -> float:
        """Dump; the seconds that the subject was frozen.

        Raises:
            CannotStream: nothing happened; dump without streaming.
            AgentError: why the dump or the storage of its images failed; the subject runs on.
        """
        member = self._member
        started = time.monotonic()
        self._capture.start()
        try:
            async with self._control:
                await dump(member, leave_running=not self._stop, hang_up=self._hang_up)
        except DumpFailed as error:
            if self._control.untranslatable:
                raise CannotStream(self._control.untranslatable) from error
            # When storage failed first, CRIU's failure is only its echo.
            self._pipeline.raise_failure()
            raise
        finally:
            self._capture.stop()
        self._pipeline.raise_failure()
        if not self._control.hooks and not self._stop:
            raise CannotStream("runc asked for the dump in an unknown way")
        if not self._capture.complete:
            raise DumpFailed(str(member), "CRIU ended before its images did")
        self._account(started)
        return self._frozen_seconds()

    def _reached(self, hook: str) -> None:
        # CRIU freezes as soon as it comes back from this one.
        if hook == "pre-dump":
            self._member.job.limit.begin()

    async def _held(self) -> bool:
        """CRIU is in its post-dump hook: copy the rest out, then let it go on."""
        self._member.enter("drain")
        self._capture.drain()
        await self._drained.wait()
        self._drained_at = time.monotonic()
        try:
            self._pipeline.raise_failure()
            if self._capture.complete:
                await self._before_thaw(self._frozen_so_far(), None)
        except (AgentError, Closed) as error:
            self._pipeline.fail(error)
        self._agreed = self._capture.complete and self._pipeline.failure is None
        return self._agreed

    def _hang_up(self) -> None:
        """Stop reading. CRIU, if it still writes, fails and puts everything back."""
        if not self._agreed:
            self._pipeline.fail(Closed())
        self._capture.stop()

    def _frozen_so_far(self) -> float:
        return time.monotonic() - self._control.hooks.get("pre-dump", time.monotonic())

    def _frozen_seconds(self) -> float:
        """CRIU's own measure of how long the tasks did not run, else ours."""
        stats = self._member.stats()
        return stats.freezing + stats.frozen if stats else self._frozen_so_far()

    def _account(self, started: float) -> None:
        """Phases from the moments that hooks came; a phase ends where the next begins."""
        phases, hooks, ended = self._member.phases, self._control.hooks, time.monotonic()
        frozen, dumped = hooks.get("pre-dump", started), hooks.get("post-dump", ended)
        committed = sum(phases.seconds.get(name, 0.0) for name in ("store", "commit"))
        for phase, seconds in {
            "start": frozen - started,
            "dump": dumped - frozen,
            "drain": self._drained_at - dumped,
            "thaw": ended - self._drained_at - committed,
        }.items():
            phases.add(phase, seconds)
