"""What one ``checkpoint-runc`` is told: that its container comes back, starts cold, or fails.

One checkpoint for all containers of a pod, and each of them once: what is created a second time in
the same sandbox is a restart, and what crashed is not brought back to where it was about to crash.
"""

from __future__ import annotations

import asyncio
import contextlib
import time

from agent.config import Tools
from agent.errors import AgentError
from agent.host.cuda import Cuda
from agent.logs import get_logger
from agent.runtime.asked import Asked, asked_of
from agent.runtime.attempts import Attempts, refuse
from agent.runtime.choice import RanBefore, choose
from agent.runtime.conversation import Conversation, Creation, HungUp
from agent.runtime.crowding import Crowded, enter, late
from agent.runtime.lookups import Lookups
from agent.runtime.member import Mismatch
from agent.runtime.question import Question
from agent.runtime.report import Reporter
from agent.runtime.restoring import Restoring
from agent.runtime.resuming import Resuming
from agent.runtime.sandboxes import Sandbox, Sandboxes
from agent.runtime.source import Source, Sources, reason_of
from agent.runtime.verdicts import Verdicts, defect, write_down
from agent.runtime.volumes import recover
from agent.settings import Settings

log = get_logger(__name__)


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
        self._attempts = Attempts(self._verdicts, reporter)

    async def stop(self) -> None:
        """Wait for what was given up, but not for a store that hangs."""
        await self._attempts.stop()
        self._lookups.close()

    async def resume(self) -> None:
        """Tell of pods that an earlier agent was in the middle of, and whose actions wait."""
        resuming = Resuming(
            self._sandboxes, self._sources, self._lookups, self._verdicts, self._reporter
        )
        await resuming.run()

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
        question = Question(creation, asked, sandbox, conversation, limit, deadline)
        try:
            await self._settle(question)
        except HungUp:
            raise
        except Exception as error:
            known = sandbox.containers.get(question.name)
            if known is None or known.state != "restored":
                await self._reporter.fell_back(sandbox, defect(question, error))
            raise

    async def _settle(self, question: Question) -> None:
        sandbox, conversation = question.sandbox, question.conversation
        async with contextlib.AsyncExitStack() as held:
            try:
                await enter(question, held, sandbox.lock)
            except Crowded as error:
                # Not written down: the record is that of whoever has the lock.
                await conversation.send("failed", {"reason": reason_of(error)})
                return
            restoring = await self._restoring(question)
            if restoring is not None and await self._has_turn(question, held):
                await self._attempts.make(question, restoring)

    def _sandbox(self, asked: Asked, creation: Creation) -> Sandbox:
        self._sandboxes.prune(creation.target.root)
        identity = asked.identity
        sandbox = self._sandboxes.of(identity.sandbox_id, identity.pod, asked.directory)
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
        try:
            await asyncio.to_thread(recover, question.asked.volumes, sandbox.decision.volumes)
        except AgentError as error:
            await self._verdicts.fail(question, error)
            return None
        if (cold := sandbox.decision.cold) is not None:
            if not sandbox.told:
                # Decided while no agent was there.
                await self._verdicts.tell_cold(sandbox, cold)
            await self._verdicts.cold(question, f"the pod was started cold: {cold}")
            return None
        return await self._found(question)

    async def _found(self, question: Question) -> Restoring | None:
        """Its checkpoint on its way back, for a container that has not run in a pod of which
        nothing is decided; None when it was told why it gets none.
        """
        try:
            async with asyncio.timeout(question.deadline - time.monotonic()):
                source = await self._source(question)
            return self._with(source, question)
        except HungUp:
            raise
        except Mismatch as error:
            # An init container, or one that the pod has got since: there is nothing to restore, and
            # nothing lost.
            await self._verdicts.cold(question, reason_of(error))
        except RanBefore as before:
            await self._verdicts.pod_cold(question, str(before))
        except AgentError as error:
            await self._refuse(question, error)
        except TimeoutError:
            await self._refuse(question, late(question))
        except Exception as error:
            # The pod's other containers have to hear of it too, and whoever waits for its action.
            log.exception("a defect", container=question.name)
            await self._refuse(question, defect(question, error))
        return None

    async def _refuse(self, question: Question, error: AgentError) -> None:
        """Not for one that has left: its kubelet asks again, and nothing is decided for the pod."""
        if question.conversation.has_left():
            raise HungUp("it is gone")
        await refuse(self._verdicts, question, error)

    def _with(self, source: Source, question: Question) -> Restoring:
        """Raises InvalidArgument."""
        return Restoring(
            source,
            question.creation,
            question.asked,
            question.conversation,
            lookups=self._lookups,
            tools=self._tools,
            cuda=self._cuda,
            state_dir=self._settings.state_dir,
        )

    async def _source(self, question: Question) -> Source:
        """The pod's checkpoint: the one its first container has got."""
        sandbox = question.sandbox
        async with question.conversation.attended():
            source = await self._lookups.in_store(choose, self._sources, sandbox, question.asked)
        if not sandbox.told:
            sandbox.told = True
            sandbox.decision.path = source.path
            await self._reporter.began(sandbox, source.manifest)
        sandbox.decision.path = source.path
        await write_down(sandbox.keep)
        return source

    async def _has_turn(self, question: Question, held: contextlib.AsyncExitStack) -> bool:
        """Wait for one, which ``held`` gives back; False when it was told that there is none."""
        try:
            await enter(question, held, self._turns)
        except Crowded as error:
            await self._refuse(question, error)
            return False
        return True
