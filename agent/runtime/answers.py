"""What one ``checkpoint-runc`` is told: that its container comes back, starts cold, or fails.

One checkpoint for all containers of a pod, and each of them once: what is created a second time in
the same sandbox is a restart, and what crashed is not brought back to where it was about to crash.
"""

from __future__ import annotations

import asyncio
import contextlib
import time

from agent.config import Tools
from agent.errors import AgentError, AgentStopping, NetworkStuck, RestoreFailed
from agent.host.cuda import Cuda
from agent.host.shield import to_the_end
from agent.logs import get_logger
from agent.messages.model import RestoredMember
from agent.runtime.asked import Asked, asked_of
from agent.runtime.conversation import Conversation, Creation, HungUp
from agent.runtime.lookups import Lookups
from agent.runtime.member import Mismatch
from agent.runtime.question import Question
from agent.runtime.report import Reporter
from agent.runtime.restoring import ClientGone, Restoring
from agent.runtime.sandboxes import Sandbox, Sandboxes
from agent.runtime.source import Source, Sources, reason_of
from agent.runtime.verdicts import Verdicts, defect, write_down
from agent.settings import Settings

log = get_logger(__name__)

# Seconds from the last word to the end of a `checkpoint-runc`, in which it becomes runc.
_LEAVING_SECONDS = 60.0

# Seconds that a restore which is given up gets to end its programs. Threads that wait for a store
# that hangs may take longer; a kubelet does not wait for them.
_ENDING_SECONDS = 1.0


class Answers:
    """Decides, restores, writes down."""

    def __init__(
        self,
        settings: Settings,
        tools: Tools,
        cuda: Cuda,
        sandboxes: Sandboxes,
        reporter: Reporter,
    ) -> None:
        self._settings, self._tools, self._cuda = settings, tools, cuda
        self._sandboxes, self._reporter, self._sources = sandboxes, reporter, Sources(settings)
        self._lookups = Lookups()
        self._verdicts = Verdicts(settings.restore.fallback, reporter)
        # Each takes 100 MiB and a core; of thirty pods that start together the others wait.
        self._turns = asyncio.Semaphore(settings.checkpoint.concurrency)
        # Restores that were given up, until the last of their threads has ended.
        self._ending: set[asyncio.Task[None]] = set()

    async def stop(self) -> None:
        """Wait for what was given up, but not for a store that hangs."""
        if self._ending:
            await asyncio.wait(self._ending, timeout=_ENDING_SECONDS)
        self._lookups.close()

    async def resume(self) -> None:
        """Tell of pods that an earlier agent was in the middle of, and whose actions wait."""
        for sandbox in self._sandboxes.known():
            try:
                await self._resume(sandbox)
            except Exception:
                log.exception("a defect: nothing is told", pod=str(sandbox.pod))

    async def _resume(self, sandbox: Sandbox) -> None:
        decision = sandbox.decision
        if decision.path is None or not await self._reporter.is_open(sandbox):
            return
        if decision.cold is not None:
            await self._verdicts.tell_cold(sandbox, decision.cold)
            return
        try:
            path, namespace = decision.path, sandbox.pod.namespace
            source = await self._lookups.in_store(self._sources.find, path, namespace)
        except AgentError as error:
            await self._reporter.fell_back(sandbox, error)
        else:
            sandbox.told = True
            await self._reporter.began(sandbox, source.manifest)

    async def answer(self, conversation: Conversation, creation: Creation) -> None:
        """Answer one creation, and see the other end leave.

        Raises:
            HungUp: the other end is gone before it was answered.
        """
        limit = self._settings.restore.limit_seconds
        deadline = time.monotonic() + limit
        await conversation.send("limit", {"seconds": limit})
        try:
            asked = await self._lookups.on_node(asked_of, creation.bundle)
        except AgentError as error:
            await conversation.send("cold", {"reason": reason_of(error)})
            return
        if asked is None or asked.wanted is None:
            await conversation.send("cold", {"reason": "it asks for no checkpoint"})
            return
        sandbox = await self._lookups.on_node(self._sandbox, asked, creation)
        question = Question(creation, asked, sandbox, conversation, deadline)
        async with sandbox.lock:
            restoring = await self._restoring(question)
            if restoring is not None:
                await self._in_turn(question, restoring)

    def _sandbox(self, asked: Asked, creation: Creation) -> Sandbox:
        self._sandboxes.prune(creation.target.root)
        sandbox = self._sandboxes.of(asked.identity.sandbox_id, asked.identity.pod)
        if sandbox.decision.action_id is None and not sandbox.told:
            sandbox.decision.action_id = asked.action_id
        return sandbox

    async def _restoring(self, question: Question) -> Restoring | None:
        """What is to be done; None when the answer was given already."""
        sandbox = question.sandbox
        await self._lookups.on_node(sandbox.catch_up)
        known = sandbox.containers.get(question.name)
        if known is not None and known.state in ("restored", "cold"):
            await self._verdicts.again(question, known)
            return None
        if (cold := sandbox.decision.cold) is not None:
            if not sandbox.told:
                # Decided while no agent was there.
                await self._verdicts.tell_cold(sandbox, cold)
            await self._verdicts.cold(question, f"the pod was started cold: {cold}")
            return None
        try:
            async with asyncio.timeout(question.deadline - time.monotonic()):
                source = await self._source(question)
            restoring = Restoring(
                source,
                question.creation,
                question.asked,
                question.conversation,
                lookups=self._lookups,
                tools=self._tools,
                cuda=self._cuda,
                state_dir=self._settings.state_dir,
            )
        except Mismatch as error:
            # An init container, or one that the pod has got since: there is nothing to restore, and
            # nothing lost.
            await self._verdicts.cold(question, reason_of(error))
        except AgentError as error:
            await self._verdicts.refuse(question, error)
        except TimeoutError:
            await self._verdicts.refuse(question, self._late(question))
        except Exception as error:
            # The pod's other containers have to hear of it too, and whoever waits for its action.
            log.exception("a defect", container=question.name)
            await self._verdicts.refuse(question, defect(question, error))
        else:
            return restoring
        return None

    async def _source(self, question: Question) -> Source:
        """The pod's checkpoint: the one its first container has got."""
        sandbox, asked = question.sandbox, question.asked
        wanted = sandbox.decision.path or asked.wanted or ""
        namespace = asked.identity.pod.namespace
        source = await self._lookups.in_store(self._sources.find, wanted, namespace)
        if not sandbox.told:
            sandbox.told = True
            sandbox.decision.path = source.path
            await self._reporter.began(sandbox, source.manifest)
        sandbox.decision.path = source.path
        await write_down(sandbox.keep)
        return source

    async def _in_turn(self, question: Question, restoring: Restoring) -> None:
        try:
            async with asyncio.timeout(question.deadline - time.monotonic()):
                await self._turns.acquire()
        except TimeoutError:
            await self._verdicts.refuse(question, self._late(question))
            return
        try:
            await self._restore(question, restoring)
        finally:
            self._turns.release()

    async def _restore(self, question: Question, restoring: Restoring) -> None:
        sandbox, done = question.sandbox, question.sandbox.decision.volumes
        # Before they are touched: should this agent die, the next one does not do it once more.
        record = question.record("restoring", volumes=restoring.volumes.wanted(done))
        await write_down(sandbox.note, question.name, record)
        work = asyncio.create_task(restoring.run(done, first=not sandbox.has_restored))
        try:
            remaining = max(0.0, question.deadline - time.monotonic())
            await asyncio.wait({work}, timeout=remaining)
            error = work.exception() if work.done() else self._late(question)
        except asyncio.CancelledError:
            await to_the_end(self._give_up(question, restoring, work, AgentStopping()))
            raise
        if error is None:
            await to_the_end(self._restored(question, restoring, work.result()))
        elif isinstance(error, ClientGone):
            await to_the_end(self._abandon(question, restoring, work))
        else:
            if not isinstance(error, AgentError):
                log.error("a defect", container=question.name, exc_info=error)
                error = defect(question, error)
            await to_the_end(self._give_up(question, restoring, work, error))

    async def _restored(self, question: Question, restoring: Restoring, pid: int) -> None:
        sandbox, name = question.sandbox, question.name
        try:
            sandbox.decision.volumes |= restoring.volumes.returned
            # Until then the other record says which volumes.
            await write_down(sandbox.keep)
            await write_down(sandbox.note, name, question.record("restored", pid=pid))
            with contextlib.suppress(HungUp):  # the container runs; whoever asked will find it
                await question.conversation.send("restored", {})
            await restoring.keep()
        finally:
            await asyncio.to_thread(restoring.close)
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
        work.cancel()
        await asyncio.wait({work}, timeout=_ENDING_SECONDS)
        try:
            await self._verdicts.refuse(question, error)
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

    def _late(self, question: Question) -> RestoreFailed:
        limit = self._settings.restore.limit_seconds
        return RestoreFailed(question.name, f"not done within {limit:g} s")
