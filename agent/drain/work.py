"""One drain: pods are checkpointed, smallest first, as long as there is time.

The pods go on; whoever ends them does so afterwards.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections import Counter
from collections.abc import Iterable
from enum import StrEnum
from typing import Final

from agent.actions import Executor
from agent.drain.candidates import Candidate
from agent.drain.deadline import Deadline
from agent.errors import AgentError, ShuttingDown
from agent.logs import get_logger
from agent.messages.model import Action, ActionRequest, CheckpointOutcome, CheckpointSpec, State

log = get_logger(__name__)

# Bytes a second at which a pod is captured at best, as far as is known: CRIU's own pace. What is
# too big even so is not frozen in vain.
_FASTEST: Final = 3e9

# Bytes of a checkpoint that tells how fast this node is; of a smaller one most is start-up.
_TELLING: Final = 64 << 20

# Seconds after which a pod that has not begun, although there is room, waits for itself: somebody
# else works on it. To look it up takes some milliseconds.
_ITS_OWN_FAULT: Final = 0.5

_BEGUN: Final = frozenset(State) - {State.INITIALIZED}


class Outcome(StrEnum):
    """What became of a pod."""

    READY = "ready"
    ERROR = "error"
    # Rolled back when the time was up.
    LATE = "late"
    NOT_BEGUN = "not_begun"
    # The notice was taken back before it was begun.
    WITHDRAWN = "withdrawn"


_LEFT: Final = (Outcome.LATE, Outcome.NOT_BEGUN, Outcome.WITHDRAWN)


class Work:
    """Takes one pod after the other: the next one is asked for when the last one has begun.

    So it is the first of those that wait when a place gets free in the executor. Nobody waits
    behind a pod that somebody else works on.
    """

    def __init__(self, executor: Executor, deadline: Deadline) -> None:
        """``deadline`` may change while it works."""
        self._executor = executor
        self.deadline = deadline
        self._fastest = 0.0
        self.withdrawn = False
        # Paths of what was made, and how many of that pod's checkpoints are kept with it.
        self.made: list[tuple[str, int]] = []
        self.outcomes: Counter[Outcome] = Counter()

    async def run(self, found: Iterable[Candidate]) -> None:
        """To its end: every pod has an outcome, and nothing that was begun goes on."""
        async with asyncio.TaskGroup() as group:
            for candidate in found:
                begun = asyncio.Event()
                group.create_task(self._see_to(candidate, begun))
                await self._begun_or_busy(begun)

    @property
    def has_left_some(self) -> bool:
        """Whether any was left out or given up, for want of time or of a reason."""
        return any(self.outcomes[each] for each in _LEFT)

    def withdraw(self) -> None:
        """Begin nothing more; what has begun is finished."""
        self.withdrawn = True
        self.deadline.halted.set()

    async def _begun_or_busy(self, begun: asyncio.Event) -> None:
        while not begun.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_ITS_OWN_FAULT):
                    await begun.wait()
            if self._executor.has_room:
                return

    async def _see_to(self, candidate: Candidate, begun: asyncio.Event) -> None:
        try:
            outcome = await self._take(candidate, begun)
        finally:
            begun.set()
        self.outcomes[outcome] += 1
        if outcome in (Outcome.NOT_BEGUN, Outcome.LATE):
            log.warning(
                "no time for a pod before its node goes",
                pod=str(candidate.pod),
                bytes=candidate.bytes,
                outcome=outcome.value,
            )

    async def _take(self, candidate: Candidate, begun: asyncio.Event) -> Outcome:
        seconds = candidate.bytes / (self._fastest or _FASTEST)
        if self.deadline.halted.is_set() or seconds > self.deadline.left:
            return self._left_out()
        spec = CheckpointSpec(candidate.pod, kind=candidate.kind, reason="heartbeat")
        request = ActionRequest(str(uuid.uuid4()), spec)
        try:
            await self._executor.submit(request, urgent=True)
            action = await self._follow(request.action_id, begun)
        except ShuttingDown:
            return Outcome.NOT_BEGUN
        except AgentError as error:
            log.warning("a pod cannot be drained", pod=str(candidate.pod), reason=str(error))
            return Outcome.ERROR
        outcome, made = self._outcome(action), action.event.checkpoint
        if outcome is Outcome.READY and made is not None and candidate.keep is not None:
            self.made.append((made.path, candidate.keep))
        return outcome

    async def _follow(self, action_id: str, begun: asyncio.Event) -> Action:
        """The action when it has ended: by itself, or given up because there is no more time."""
        beginning = asyncio.create_task(self._executor.wait(action_id, _BEGUN))
        ending = asyncio.create_task(self._executor.wait(action_id))
        halting = asyncio.create_task(self.deadline.halted.wait())
        over = asyncio.create_task(self.deadline.over.wait())
        try:
            await asyncio.wait({beginning, halting}, return_when=asyncio.FIRST_COMPLETED)
            if beginning.done():
                begun.set()
                await asyncio.wait({ending, over}, return_when=asyncio.FIRST_COMPLETED)
            return await (ending if ending.done() else self._executor.cancel(action_id))
        finally:
            for task in (beginning, ending, halting, over):
                task.cancel()

    def _outcome(self, action: Action) -> Outcome:
        failure = action.event.failure
        if failure is None:
            self._learn(action.event.checkpoint)
            return Outcome.READY
        if failure.code != "cancelled":
            return Outcome.ERROR
        # Whoever else may cancel it would not do so in the last moments.
        if self.deadline.over.is_set():
            return Outcome.LATE
        return self._left_out()

    def _left_out(self) -> Outcome:
        return Outcome.WITHDRAWN if self.withdrawn else Outcome.NOT_BEGUN

    def _learn(self, outcome: CheckpointOutcome | None) -> None:
        if outcome is not None and outcome.bytes_raw >= _TELLING and outcome.wall_seconds > 0:
            self._fastest = max(self._fastest, outcome.bytes_raw / outcome.wall_seconds)
