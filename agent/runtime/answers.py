"""What one ``checkpoint-runc`` is told: that its container comes back, starts cold, or fails.

One checkpoint for all containers of a pod, and each of them once: what is created a second time in
the same sandbox is a restart, and what crashed is not brought back to where it was about to crash.
"""

from __future__ import annotations

import asyncio
import contextlib
import time

from agent.config import Tools
from agent.errors import AgentError, AgentStopping, RestoreFailed, StartedCold
from agent.host.cuda import Cuda
from agent.host.shield import to_the_end
from agent.logs import get_logger
from agent.messages.model import RestoredMember
from agent.runtime.asked import Asked, asked_of
from agent.runtime.conversation import Conversation, Creation, HungUp
from agent.runtime.member import Mismatch
from agent.runtime.question import Question
from agent.runtime.report import Reporter
from agent.runtime.restoring import ClientGone, Restoring
from agent.runtime.sandboxes import Container, Sandbox, Sandboxes, State
from agent.runtime.source import Source, find_source, reason_of
from agent.settings import Settings

_log = get_logger(__name__)

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
        self._sandboxes, self._reporter = sandboxes, reporter
        # Each takes 100 MiB and a core; of thirty pods that start together the others wait.
        self._turns = asyncio.Semaphore(settings.checkpoint.concurrency)
        # Restores that were given up, until the last of their threads has ended.
        self._ending: set[asyncio.Task[None]] = set()

    async def stop(self) -> None:
        """Wait for what was given up, but not for a store that hangs."""
        if self._ending:
            await asyncio.wait(self._ending, timeout=_ENDING_SECONDS)

    async def resume(self) -> None:
        """Tell of pods that an earlier agent was in the middle of, and whose actions wait."""
        for sandbox in self._sandboxes.known():
            if sandbox.decision.path is None or not await self._reporter.is_open(sandbox):
                continue
            try:
                path, namespace = sandbox.decision.path, sandbox.pod.namespace
                source = await asyncio.to_thread(find_source, path, namespace, self._settings)
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
            asked = await asyncio.to_thread(asked_of, creation.bundle)
        except AgentError as error:
            await conversation.send("cold", {"reason": reason_of(error)})
            return
        if asked is None or asked.wanted is None:
            await conversation.send("cold", {"reason": "it asks for no checkpoint"})
            return
        sandbox = await asyncio.to_thread(self._sandbox, asked, creation)
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
        sandbox, known = question.sandbox, question.sandbox.containers.get(question.name)
        if known is not None and known.state in ("restored", "cold"):
            await self._again(question, known)
            return None
        if sandbox.decision.cold is not None:
            await self._cold(question, f"the pod was started cold: {sandbox.decision.cold}")
            return None
        try:
            async with asyncio.timeout(question.deadline - time.monotonic()):
                source = await self._source(question)
            restoring = Restoring(
                source,
                question.creation,
                question.asked,
                question.conversation,
                tools=self._tools,
                cuda=self._cuda,
                state_dir=self._settings.state_dir,
            )
        except Mismatch as error:
            # An init container, or one that the pod has got since: there is nothing to restore, and
            # nothing lost.
            await self._cold(question, reason_of(error))
        except AgentError as error:
            await self._refuse(question, error)
        except TimeoutError:
            await self._refuse(question, self._late(question))
        else:
            return restoring
        return None

    async def _source(self, question: Question) -> Source:
        """The pod's checkpoint: the one its first container has got."""
        sandbox, asked = question.sandbox, question.asked
        wanted = sandbox.decision.path or asked.wanted or ""
        namespace = asked.identity.pod.namespace
        source = await asyncio.to_thread(find_source, wanted, namespace, self._settings)
        if not sandbox.told:
            sandbox.told = True
            sandbox.decision.path = source.path
            await self._reporter.began(sandbox, source.manifest)
        sandbox.decision.path = source.path
        await asyncio.to_thread(sandbox.keep)
        return source

    async def _in_turn(self, question: Question, restoring: Restoring) -> None:
        try:
            async with asyncio.timeout(question.deadline - time.monotonic()):
                await self._turns.acquire()
        except TimeoutError:
            await self._refuse(question, self._late(question))
            return
        try:
            await self._restore(question, restoring)
        finally:
            self._turns.release()

    async def _restore(self, question: Question, restoring: Restoring) -> None:
        sandbox, name = question.sandbox, question.name
        await asyncio.to_thread(sandbox.note, name, question.record("restoring"))
        work = asyncio.create_task(
            restoring.run(sandbox.decision.volumes, first=not sandbox.has_restored)
        )
        try:
            remaining = max(0.0, question.deadline - time.monotonic())
            await asyncio.wait({work}, timeout=remaining)
            error = _failure(work, self._late(question))
        except asyncio.CancelledError:
            await to_the_end(self._give_up(question, restoring, work, AgentStopping()))
            raise
        if error is None:
            await to_the_end(self._restored(question, restoring, work.result()))
        elif isinstance(error, AgentError):
            await to_the_end(self._give_up(question, restoring, work, error))
        else:
            # A defect, or an end that nobody listens to any more.
            await to_the_end(self._abandon(question, restoring, work))
            if not isinstance(error, ClientGone):
                raise error

    async def _restored(self, question: Question, restoring: Restoring, pid: int) -> None:
        sandbox, name = question.sandbox, question.name
        sandbox.decision.volumes |= restoring.returned
        await asyncio.to_thread(sandbox.note, name, question.record("restored", pid=pid))
        await asyncio.to_thread(sandbox.keep)
        with contextlib.suppress(HungUp):  # the container runs; whoever asked will find it
            await question.conversation.send("restored", {})
        await restoring.keep()
        await asyncio.to_thread(restoring.close)
        member = RestoredMember(name, question.creation.target.container, pid)
        await self._reporter.restored(sandbox, member, restoring.phases.summary())
        _log.info(
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
        """Undo what is this end's, tell the other one, and wait until it has undone the rest."""
        work.cancel()
        await asyncio.wait({work}, timeout=_ENDING_SECONDS)
        await restoring.undo()
        try:
            await self._refuse(question, error)
            async with asyncio.timeout(_LEAVING_SECONDS):
                await _gone(question.conversation)
        except (HungUp, TimeoutError):
            pass  # it was killed, and its engine removes the container
        self._end(work, restoring)

    async def _abandon(
        self, question: Question, restoring: Restoring, work: asyncio.Task[int]
    ) -> None:
        """Undo everything: there is nobody else."""
        await restoring.remove()
        await restoring.undo()
        record = question.record("failed", "what stood in for runc was killed")
        await asyncio.to_thread(question.sandbox.note, question.name, record)
        self._end(work, restoring)

    def _end(self, work: asyncio.Task[int], restoring: Restoring) -> None:
        async def end() -> None:
            await asyncio.wait({work})
            await restoring.open_network()
            await asyncio.to_thread(restoring.close)

        ending = asyncio.create_task(end())
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)

    async def _refuse(self, question: Question, error: AgentError) -> None:
        """A cold start where that is as good, and else none."""
        sandbox, reason = question.sandbox, reason_of(error)
        pod = str(sandbox.pod)
        if self._settings.restore.fallback == "fail" or sandbox.has_restored:
            # It may be tried again: the kubelet does.
            await self._note(question, "failed", reason)
            await self._reporter.fell_back(sandbox, error)
            await question.conversation.send("failed", {"reason": reason})
            return
        sandbox.decision.cold = reason
        await asyncio.to_thread(sandbox.keep)
        await self._note(question, "cold", reason)
        log_tail = getattr(error, "log_tail", "")
        await self._reporter.fell_back(sandbox, StartedCold(pod, reason, log_tail))
        await question.conversation.send("cold", {"reason": reason})

    async def _cold(self, question: Question, reason: str) -> None:
        await self._note(question, "cold", reason)
        await question.conversation.send("cold", {"reason": reason})

    async def _again(self, question: Question, known: Container) -> None:
        """A restart. What became of the first one stays written down."""
        identity = question.creation.target.container
        reason = f"a restart, as {identity}: only its first start is a restore"
        if known.state == "restored":
            known = known.model_copy(update={"reason": reason})
            await asyncio.to_thread(question.sandbox.note, question.name, known)
        _log.info("cold", pod=str(question.sandbox.pod), container=question.name, reason=reason)
        await question.conversation.send("cold", {"reason": reason})

    async def _note(self, question: Question, state: State, reason: str) -> None:
        pod = str(question.sandbox.pod)
        _log.warning(state, pod=pod, container=question.name, reason=reason)
        record = question.record(state, reason)
        await asyncio.to_thread(question.sandbox.note, question.name, record)

    def _late(self, question: Question) -> RestoreFailed:
        limit = self._settings.restore.limit_seconds
        return RestoreFailed(question.name, f"not done within {limit:g} s")


def _failure(work: asyncio.Task[int], late: RestoreFailed) -> BaseException | None:
    return work.exception() if work.done() else late


async def _gone(conversation: Conversation) -> None:
    """Wait until the other end hangs up."""
    with contextlib.suppress(HungUp):
        while True:
            await conversation.receive()
