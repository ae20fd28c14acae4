"""What a container is told that does not come back, and what is written down of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ParamSpec

from agent.errors import AgentError, RestoreFailed, StartedCold
from agent.logs import get_logger
from agent.runtime.question import Question
from agent.runtime.report import Reporter
from agent.runtime.sandboxes import Container, Sandbox, State
from agent.runtime.source import reason_of

log = get_logger(__name__)

P = ParamSpec("P")


class Verdicts:
    """Tells the other end, whoever waits for the pod's action, and later agents."""

    def __init__(self, fallback: str, reporter: Reporter) -> None:
        """``fallback`` is that of [restore]."""
        self._fallback, self._reporter = fallback, reporter

    async def refuse(self, question: Question, error: AgentError) -> None:
        """A cold start where that is as good, and else none."""
        sandbox, reason = question.sandbox, reason_of(error)
        if self._fallback == "fail" or sandbox.runs_restored:
            # It may be tried again: the kubelet does. Those that have come back may end meanwhile,
            # for lack of this one perhaps; they start cold then, and so may this one.
            await self.fail(question, error)
        else:
            await self.pod_cold(question, reason, getattr(error, "log_tail", ""))

    async def fail(self, question: Question, error: AgentError) -> None:
        """It does not start."""
        reason = reason_of(error)
        await self.note(question, "failed", reason)
        await self._reporter.fell_back(question.sandbox, error)
        await question.conversation.send("failed", {"reason": reason})

    async def pod_cold(self, question: Question, reason: str, log_tail: str = "") -> None:
        """All of the pod starts cold."""
        sandbox = question.sandbox
        sandbox.decision.cold = reason
        await write_down(sandbox.keep)
        await self.note(question, "cold", reason)
        await self.tell_cold(sandbox, reason, log_tail)
        await question.conversation.send("cold", {"reason": reason})

    async def tell_cold(self, sandbox: Sandbox, reason: str, log_tail: str = "") -> None:
        """Tell whoever waits for the pod's action."""
        sandbox.told = True
        await self._reporter.fell_back(sandbox, StartedCold(str(sandbox.pod), reason, log_tail))

    async def cold(self, question: Question, reason: str) -> None:
        """This container starts cold, and nobody else has to know."""
        await self.note(question, "cold", reason)
        await question.conversation.send("cold", {"reason": reason})

    async def again(self, question: Question, known: Container) -> None:
        """A restart. What became of the first one stays written down."""
        identity = question.creation.target.container
        reason = f"a restart, as {identity}: only its first start is a restore"
        if known.state == "restored":
            known = known.model_copy(update={"reason": reason, "again": True})
            await write_down(question.sandbox.note, question.name, known)
        log.info("cold", pod=str(question.sandbox.pod), container=question.name, reason=reason)
        await question.conversation.send("cold", {"reason": reason})

    async def vanished(self, question: Question) -> None:
        """The other end has ended without a word: it was killed, or has decided by itself."""
        sandbox, name = question.sandbox, question.name
        await asyncio.to_thread(sandbox.catch_up)
        found = sandbox.containers[name]
        if found.state != "cold":
            await self.note(question, "failed", "what stood in for runc was killed")
            return
        log.warning("cold", pod=str(sandbox.pod), container=name, reason=found.reason)
        await write_down(sandbox.keep)
        await self.tell_cold(sandbox, found.reason)

    async def note(self, question: Question, state: State, reason: str) -> None:
        """Write down, and log, why a container did not come back."""
        pod = str(question.sandbox.pod)
        log.warning(state, pod=pod, container=question.name, reason=reason)
        record = question.record(state, reason)
        await write_down(question.sandbox.note, question.name, record)


def defect(question: Question, error: BaseException) -> RestoreFailed:
    """What others are told of an exception that nobody expected."""
    return RestoreFailed(question.name, f"a defect of the agent: {error!r}")


async def write_down(write: Callable[P, None], *args: P.args, **named: P.kwargs) -> None:
    """What cannot be written is known all the same, until this agent ends."""
    try:
        await asyncio.to_thread(write, *args, **named)
    except OSError as error:
        log.warning("what was decided for a pod cannot be written down", reason=str(error))
