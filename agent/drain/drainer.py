"""Hears of notices and drains: once for all that come together, and again for later ones."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from agent.actions import Executor
from agent.drain.candidates import candidates, saved_lately
from agent.drain.deadline import Deadline
from agent.drain.figures import Figures
from agent.drain.notice import Notice, Source
from agent.drain.work import Outcome, Work
from agent.heartbeat import keep_newest
from agent.logs import get_logger
from agent.metrics import Metrics
from agent.settings import Settings

log = get_logger(__name__)

# Seconds: no cloud gives more. What was saved since then may have been saved for the same notice,
# by an agent that has been started again.
_LONGEST_NOTICE: Final = 120.0


@dataclass(frozen=True, slots=True)
class _Heard:
    """A notice, and when the node goes by the event loop's clock: None where nobody says."""

    notice: Notice
    until: float | None


class Drainer:
    """For the event loop's thread."""

    def __init__(
        self, settings: Settings, executor: Executor, metrics: Metrics, sources: Sequence[Source]
    ) -> None:
        self._settings, self._executor, self._sources = settings, executor, sources
        self._default = settings.drain.deadline_seconds
        self._figures = Figures(metrics)
        self._notices: dict[str, _Heard] = {}
        # The one of them that is to be acted on next.
        self._due: _Heard | None = None
        self._changed = asyncio.Event()
        # Set while nobody has to wait for a drain.
        self._idle = asyncio.Event()
        self._idle.set()
        # Held by whoever drains: pods are not taken twice at the same time.
        self._turn = asyncio.Lock()
        self._work: Work | None = None
        self._finished = False
        # What drains have made, until what that replaces is deleted.
        self._made: asyncio.Queue[tuple[str, int]] = asyncio.Queue()
        self._ended_at = float("-inf")

    @property
    def draining(self) -> bool:
        """Whether the node's pods are being taken care of at this moment."""
        return self._work is not None or not self._idle.is_set()

    async def run(self) -> None:
        """Watch every source and drain when one of them says so; never returns."""
        async with asyncio.TaskGroup() as group:
            for source in self._sources:
                group.create_task(source.watch(partial(self._hear, source.name)))
            group.create_task(self._drain_when_told())
            group.create_task(self._delete_replaced())

    async def finish(self) -> None:
        """The agent is being stopped, and with it the node: drain, unless that has just been done.

        Notices begin no drain any more; whoever gives one waits for this one, and takes it back in
        vain.
        """
        heard = self._heard(Notice("the agent is being stopped", self._default))
        # Whoever stops it waits for no longer, whatever another notice has said.
        self._limit(heard)
        await self._idle.wait()
        try:
            async with self._turn:
                self._finished = True
                if not self._has_just_drained():
                    self._idle.clear()
                    await self._drain(heard)
        finally:
            self._idle.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(heard.until):
                await self._made.join()

    def _hear(self, source: str, notice: Notice | None) -> asyncio.Event:
        known = self._notices.pop(source, None)
        if notice is not None:
            # A notice is one however often it is repeated; the first one says how long there is.
            heard = known or self._heard(notice)
            if known is None:
                self._take(source, heard)
            self._notices[source] = heard
        elif known is not None:
            self._take_back(source, known)
        self._figures.draining.set(1 if self._notices else 0)
        self._changed.set()
        return self._idle

    def _take(self, source: str, heard: _Heard) -> None:
        notice = heard.notice
        log.warning("the node goes", source=source, reason=notice.reason, seconds=notice.seconds)
        self._limit(heard)
        # A cordon of yesterday is no reason not to drain when the machine is shut down.
        if self._due is None and not (self._notices and self._adds_nothing(heard)):
            self._due = heard
            self._idle.clear()

    def _limit(self, heard: _Heard) -> None:
        """Let what goes on, or is to begin, know when the node goes."""
        if heard.until is None:
            return
        if self._work is not None:
            self._work.deadline.tell(heard.until)
        due = self._due
        if due is not None and (due.until is None or heard.until < due.until):
            self._due = heard

    def _take_back(self, source: str, heard: _Heard) -> None:
        log.info("a notice was taken back", source=source, reason=heard.notice.reason)
        if self._due is heard:
            self._due = next(iter(self._notices.values()), None)
        if not self._notices and self._work is not None and not self._finished:
            self._work.withdraw()

    def _adds_nothing(self, heard: _Heard) -> bool:
        """Whether the pods are taken care of as well as they can be, although there is this."""
        if (work := self._work) is None:
            return self._has_just_drained()
        # More time than was assumed is more for those that were left out already.
        return heard.until is None or not (work.deadline.halted.is_set() or work.has_left_some)

    def _has_just_drained(self) -> bool:
        """What is done within the time that a drain may take is as good as done now."""
        return time.monotonic() - self._ended_at < self._default

    def _heard(self, notice: Notice) -> _Heard:
        now = asyncio.get_running_loop().time()
        return _Heard(notice, None if notice.seconds is None else now + notice.seconds)

    async def _drain_when_told(self) -> None:
        while True:
            while (heard := self._due) is None:
                if not self._turn.locked():
                    self._idle.set()
                self._changed.clear()
                await self._changed.wait()
            self._due = None
            async with self._turn:
                if not self._finished:
                    await self._drain(heard)

    async def _drain(self, heard: _Heard) -> None:
        began = time.monotonic()
        if heard.until is None:
            deadline = Deadline(self._default, told=False)
        else:
            deadline = Deadline(heard.until - asyncio.get_running_loop().time())
        self._work = work = Work(self._executor, deadline)
        try:
            saved = await saved_lately(self._executor, max(self._default, _LONGEST_NOTICE))
            roots, keep = self._settings.pods.runc_roots, self._settings.heartbeat.keep
            await work.run(await asyncio.to_thread(candidates, roots, saved, keep))
            self._ended_at = float("-inf") if work.has_left_some else time.monotonic()
        finally:
            self._work = None
            deadline.close()
            for made in work.made:
                self._made.put_nowait(made)
        self._tell(heard.notice, work, time.monotonic() - began)

    async def _delete_replaced(self) -> None:
        """Between drains: nobody who waits for one waits for this."""
        while True:
            path, keep = await self._made.get()
            try:
                await self._idle.wait()
                await keep_newest(path, keep, self._executor, self._settings.state_dir)
            finally:
                self._made.task_done()

    def _tell(self, notice: Notice, work: Work, seconds: float) -> None:
        for outcome, number in work.outcomes.items():
            self._figures.pods.labels(outcome.value).inc(number)
        self._figures.seconds.observe(seconds)
        counts = {outcome.value: work.outcomes[outcome] for outcome in Outcome}
        log.info(
            "drained",
            reason=notice.reason,
            seconds=round(seconds, 3),
            pods=work.outcomes.total(),
            **counts,
        )
