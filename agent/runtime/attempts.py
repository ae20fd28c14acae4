"""A restore from its first step to its end: the container runs, or all of it is undone."""

from __future__ import annotations

import asyncio
import time

from agent.errors import AgentError, AgentStopping, NetworkStuck
from agent.host.shield import to_the_end
from agent.logs import get_logger
from agent.messages.model import RestoredMember
from agent.runtime.conversation import HungUp
from agent.runtime.crowding import Crowded, late
from agent.runtime.question import Question
from agent.runtime.report import Reporter
from agent.runtime.restoring import ClientGone, Restoring
from agent.runtime.source import reason_of
from agent.runtime.verdicts import Verdicts, defect, write_down

log = get_logger(__name__)

# Seconds from the last word to the end of a `checkpoint-runc`, in which it becomes runc.
_LEAVING_SECONDS = 60.0

# Seconds that a restore which is given up gets to end its programs. Threads that wait for a store
# that hangs may take longer; a kubelet does not wait for them.
_ENDING_SECONDS = 1.0


class Attempts:
    """Carries restores out, and writes down what has become of them."""

    def __init__(self, verdicts: Verdicts, reporter: Reporter) -> None:
        self._verdicts, self._reporter = verdicts, reporter
        # Restores that were given up, until the last of their threads has ended.
        self._ending: set[asyncio.Task[None]] = set()

    async def stop(self) -> None:
        """Wait for what was given up, but not for a store that hangs."""
        if self._ending:
            await asyncio.wait(self._ending, timeout=_ENDING_SECONDS)

    async def make(self, question: Question, restoring: Restoring) -> None:
        """Restore one container, tell its other end, and see that leave if it did not come back."""
        sandbox, done = question.sandbox, question.sandbox.decision.volumes
        # Before they are touched: should this agent die, the next one does not do it once more.
        record = question.record("restoring", volumes=restoring.volumes.wanted(done))
        await write_down(sandbox.note, question.name, record)
        work = asyncio.create_task(restoring.run(done, first=not sandbox.has_restored))
        try:
            error = await _failure(question, work)
        except asyncio.CancelledError:
            await to_the_end(self._give_up(question, restoring, work, AgentStopping()))
            raise
        if error is None:
            await to_the_end(self._complete(question, restoring, work))
        elif isinstance(error, ClientGone):
            await to_the_end(self._abandon(question, restoring, work))
        else:
            if not isinstance(error, AgentError):
                log.error("a defect", container=question.name, exc_info=error)
                error = defect(question, error)
            await to_the_end(self._give_up(question, restoring, work, error))

    async def _complete(
        self, question: Question, restoring: Restoring, work: asyncio.Task[int]
    ) -> None:
        """All of it is done; it has come back if the other end, whose child it is, still lives."""
        restored = True
        try:
            restored = await self._tell(question, restoring, work.result())
            if restored:
                await restoring.keep()
        finally:
            if restored:
                await asyncio.to_thread(restoring.close)
        if not restored:
            await self._abandon(question, restoring, work)
            return
        name, sandbox, pid = question.name, question.sandbox, work.result()
        member = RestoredMember(name, question.creation.target.container, pid)
        await self._reporter.restored(sandbox, member, restoring.phases.summary())
        log.info(
            "restored",
            pod=str(sandbox.pod),
            container=name,
            path=sandbox.decision.path,
            pid=pid,
            seconds=round(restoring.phases.wall(), 3),
            fallback_reason=restoring.fallback_reason,
        )

    @staticmethod
    async def _tell(question: Question, restoring: Restoring, pid: int) -> bool:
        """Write down that it runs, and tell the other end; False when there is none any more.

        Its engine then removes the container, and the kubelet asks for it again.
        """
        sandbox = question.sandbox
        if question.conversation.has_left():
            return False
        returned = restoring.volumes.returned - sandbox.decision.volumes
        sandbox.decision.volumes |= returned
        # Until then the other record says which volumes.
        await write_down(sandbox.keep)
        await write_down(sandbox.note, question.name, question.record("restored", pid=pid))
        try:
            await question.conversation.send("restored", {})
        except HungUp:
            # By itself it leaves only when its own time is up, 5 s after ours, and the container
            # stays. Before that it was killed.
            if time.monotonic() > question.deadline:
                return True
            sandbox.decision.volumes -= returned
            await write_down(sandbox.keep)
            return False
        return True

    async def _give_up(
        self,
        question: Question,
        restoring: Restoring,
        work: asyncio.Task[int],
        error: AgentError,
    ) -> None:
        """Tell the other end, wait until it has undone everything, and see to it that it has.

        Not before: it ends the processes, and until then they may write to the volumes.
        """
        await _cancel(work)
        if question.conversation.has_left():
            # Nothing is decided for a pod whose container nobody waits for.
            await self._abandon(question, restoring, work)
            return
        try:
            await refuse(self._verdicts, question, error)
            async with asyncio.timeout(_LEAVING_SECONDS):
                await question.conversation.until_gone()
            await restoring.undo()
        except HungUp:
            await self._clear(question, restoring)  # it was killed
        except TimeoutError:
            # It still works on it, and two must not do that.
            restoring.leave(to_the_other_end=True)
        finally:
            self._end(work, restoring)

    async def _abandon(
        self, question: Question, restoring: Restoring, work: asyncio.Task[int]
    ) -> None:
        """Undo everything, and find out what has become of the container."""
        await _cancel(work)
        try:
            await self._clear(question, restoring)
            await self._verdicts.vanished(question)
        finally:
            self._end(work, restoring)

    @staticmethod
    async def _clear(question: Question, restoring: Restoring) -> None:
        """Undo everything: there is nobody else. The engine removes the container."""
        # runc and CRIU, children of the other end, may live a little longer.
        restoring.leave()
        try:
            # First: until then they may write to the volumes.
            await restoring.remove()
        except (AgentError, OSError) as error:
            container = question.creation.target.container
            log.warning("not removed", container=container, reason=str(error))
        await restoring.undo()

    def _end(self, work: asyncio.Task[int], restoring: Restoring) -> None:
        async def end() -> None:
            # First: threads of `work` may wait for a store that hangs.
            try:
                await restoring.open_network()
            except NetworkStuck as error:
                log.warning("a network may be closed", reason=str(error))
                restoring.leave()  # the recovery tries again
            await asyncio.wait({work})
            if not work.cancelled():
                work.exception()  # looked at: asyncio does not report it as lost
            await asyncio.to_thread(restoring.close)

        ending = asyncio.create_task(end())
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)


async def _failure(question: Question, work: asyncio.Task[int]) -> BaseException | None:
    """What it failed of, None when it has not; as soon as it is late or nobody waits for it."""
    leaving = asyncio.create_task(question.conversation.gone())
    remaining = max(0.0, question.deadline - time.monotonic())
    try:
        await asyncio.wait({work, leaving}, timeout=remaining, return_when=asyncio.FIRST_COMPLETED)
    finally:
        leaving.cancel()
    if work.done():
        return work.exception()
    return ClientGone() if leaving.done() else late(question)


async def _cancel(work: asyncio.Task[int]) -> None:
    work.cancel()
    await asyncio.wait({work}, timeout=_ENDING_SECONDS)


async def refuse(verdicts: Verdicts, question: Question, error: AgentError) -> None:
    """Tell a container that it does not come back, or not now."""
    if isinstance(error, Crowded):
        # Nothing is decided for its pod: it comes again.
        reason = reason_of(error)
        await verdicts.note(question, "failed", reason)
        await question.conversation.send("failed", {"reason": reason})
        return
    await verdicts.refuse(question, error)
