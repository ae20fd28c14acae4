"""Takes actions, runs them so many at a time, and reports what becomes of each.

Whatever goes wrong with an action ends as its `error` event; nothing of that stops the agent. An
action is durable before ``submit`` returns, and so is every state before anybody hears of it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Collection
from datetime import UTC, datetime, timedelta
from functools import partial

from agent.actions.book import Book
from agent.actions.bookkeeper import Bookkeeper
from agent.actions.failure import bounded
from agent.actions.outbox import Outbox
from agent.actions.rows import OpenAction
from agent.actions.run import Means, Run
from agent.actions.settling import PATIENCE
from agent.actions.summary import Summary, tell_recovered
from agent.actions.turns import Turns
from agent.actions.watchers import Watchers
from agent.actions.worker import Worker
from agent.errors import AgentError, AgentStopping, Cancelled, QueueFull, ShuttingDown, StoreFailed
from agent.logs import get_logger
from agent.messages.model import (
    Action,
    ActionRequest,
    ActionType,
    CheckpointSpec,
    Event,
    Failure,
    State,
)
from agent.metrics import Metrics
from agent.settings import Settings
from agent.targets import PodRef

TERMINAL = frozenset(state for state in State if state.is_terminal)

# What is kept of ended actions at most, whatever their age: some 30 MB.
_HISTORY = 10_000

# Seconds. Twice what CRIU gets to put everything back: what takes longer waits for a journal that
# cannot be written, or for a store that does not answer.
_ROLLING_BACK = 60.0

# Seconds between two looks for what may be forgotten.
_TIDYING = 3600.0

_log = get_logger(__name__)


class Executor:
    """The actions of one node.

    Attributes:
        outbox: what still has to be published.
    """

    def __init__(
        self, settings: Settings, worker: Worker, metrics: Metrics, *, patience: float = PATIENCE
    ) -> None:
        """``patience``: seconds to find out for what an agent that died had completed."""
        self._settings, self._worker = settings, worker
        self._bookkeeper = Bookkeeper(self._open_book)
        self.outbox = Outbox(self._bookkeeper)
        self._watchers = Watchers()
        self._summary = Summary(metrics)
        self._means = Means(
            worker=worker,
            turns=Turns(settings.checkpoint.concurrency),
            bookkeeper=self._bookkeeper,
            tell=self._tell,
            summary=self._summary,
            patience=patience,
        )
        self._runs: dict[str, Run] = {}
        # Being written down, with their ids.
        self._accepting: dict[asyncio.Task[Action], str] = {}
        self._tidying: asyncio.Task[None] | None = None
        self._stopping = False

    @property
    def running(self) -> int:
        """Actions being worked on, those that others need not wait for any more included."""
        return sum(run.begun for run in self._runs.values())

    @property
    def queued(self) -> int:
        """Actions waiting for their turn."""
        return len(self._runs) - self.running

    @property
    def is_busy(self) -> bool:
        """Whether anything is worked on or waits. What is only settled or watched touches nothing:
        a pod that Kubernetes brings back may take ten minutes.
        """
        return any(not (run.settling or run.watching) for run in self._runs.values())

    def watches(self, uid: str) -> bool:
        """Whether an action only tells of what others do with this pod, and has it to itself."""
        return any(run.watching and run.pod and run.pod.uid == uid for run in self._runs.values())

    @property
    def has_room(self) -> bool:
        """Whether an action that works on nothing that is busy would begin at once."""
        return self._means.turns.has_room

    async def start(self) -> None:
        """Clean up after a dead agent, settle or resume its open actions; from then on take new.

        Raises:
            StoreFailed, FormatTooNew: the journal cannot be used. What was frozen is thawed.
        """
        for recovered in await self._worker.clean_up():
            tell_recovered(recovered)
        await self._bookkeeper.start()
        for left in await self._bookkeeper.look(lambda book: book.open_actions()):
            self._take_up(left)
        self._tidying = asyncio.create_task(self._tidy())
        # What an earlier agent could not publish.
        self.outbox.changed.set()

    async def submit(self, request: ActionRequest, *, urgent: bool = False) -> Action:
        """Take an action; it and its first event are durable on return.

        The same id with the same request is answered with the action as it is now: nothing is done
        again and no event is sent.

        Args:
            urgent: it begins before all that wait, however many they are.

        Raises:
            AlreadyExists: another action has that id.
            QueueFull, ShuttingDown, StoreFailed: nothing was recorded; it may be sent again.
        """
        if self._stopping:
            raise ShuttingDown
        waiting = self.queued + len(self._accepting)
        if waiting >= self._settings.checkpoint.queue_limit and not urgent:
            known = await self._bookkeeper.look(lambda book: book.known(request))
            if known is None:
                raise QueueFull(self._settings.checkpoint.queue_limit)
            return known
        # Shielded: who goes away meanwhile does not leave an action that nobody runs.
        accepting = asyncio.create_task(self._accept(request, urgent))
        self._accepting[accepting] = request.action_id
        accepting.add_done_callback(self._accepting.pop)
        return await asyncio.shield(accepting)

    async def refuse(
        self, action_id: str, kind: ActionType, error: AgentError, pod: PodRef | None = None
    ) -> None:
        """Send an `error` event for a message that is no action.

        Its sequence is 0, before those of an action of that id that may still come. If there is
        one already, that is left alone and nothing is sent.

        Raises:
            StoreFailed: nothing was recorded.
        """
        failure = bounded(Failure.of(error))
        event = Event(action_id, 0, State.ERROR, kind, datetime.now(UTC), pod, failure=failure)
        if await self._bookkeeper.do(lambda book: book.refuse(event)):
            self._tell(event)

    async def get(self, action_id: str) -> Action:
        """Raises ActionNotFound."""
        return await self._bookkeeper.look(lambda book: book.get(action_id))

    async def list(self, states: Collection[State] = (), limit: int = 100) -> list[Action]:
        """Newest first; of all states when none are given."""
        return await self._bookkeeper.look(lambda book: book.actions(states, limit))

    async def subscribe(self, action_id: str) -> AsyncGenerator[Event, None]:
        """The latest event, then every later one to the last.

        Who reads slowly misses progress, never a change of state.

        Raises:
            ActionNotFound: at the first step.
            ShuttingDown: the agent stops, and the action is to be resumed at its next start.
        """
        with self._watchers.watching(action_id) as watcher:
            event = (await self.get(action_id)).event
            yield event
            while not event.state.is_terminal:
                following = await watcher.next()
                # What happened between the beginning of the watch and the look at the book.
                if following.sequence > event.sequence:
                    event = following
                    yield event

    async def wait(self, action_id: str, until: Collection[State] = TERMINAL) -> Action:
        """The action once it is in one of these states, or has ended.

        Raises:
            ActionNotFound
            ShuttingDown: the agent stops, and the action is to be resumed at its next start.
        """
        async with contextlib.aclosing(self.subscribe(action_id)) as events:
            async for event in events:
                if event.state in until:
                    break
        return await self.get(action_id)

    async def cancel(self, action_id: str) -> Action:
        """Give an action up; returns when everything is put back. An ended one stays as it is.

        An action that is just completing may still become `ready`. One that an agent before this
        one had begun ends at once; what became of it remains unknown then.

        Raises:
            ActionNotFound
        """
        # One that is only being written down has no run yet, and would begin after all.
        while mine := [task for task, taken in self._accepting.items() if taken == action_id]:
            await asyncio.wait(mine)
        if (run := self._runs.get(action_id)) is not None:
            run.give_up(Cancelled())
            await asyncio.wait({run.task})
        return await self.get(action_id)

    async def stop(self, grace_seconds: float) -> None:
        """Take nothing new; what runs gets the time to finish and is rolled back then.

        Those end with `agent_stopping`, because their containers go on as if nothing had been. What
        waits for its turn stays in the journal and is resumed at the next start. Call
        :meth:`close` when the last events are published.
        """
        self._stopping = True
        if self._tidying is not None:
            self._tidying.cancel()
        if self._accepting:
            await asyncio.wait(self._accepting)
        runs = list(self._runs.values())
        for run in runs:
            if not run.begun or run.settling or run.watching:
                run.leave()
        if runs:
            _, late = await asyncio.wait({run.task for run in runs}, timeout=grace_seconds)
            for run in runs:
                run.give_up(AgentStopping())
            if late:
                _log.warning("rolling back what still runs", actions=len(late))
                _, stuck = await asyncio.wait(late, timeout=_ROLLING_BACK)
                for task in stuck:
                    _log.error("not put back in time; the next start does it", task=str(task))
                    task.cancel()
        self._watchers.end()

    async def close(self) -> None:
        """Let go of the journal and of what the worker holds."""
        await self._bookkeeper.close()
        self._worker.close()

    def _open_book(self) -> Book:
        node = self._settings.node
        return Book(
            self._settings.state_dir / "actions.db",
            cluster=node.cluster,
            node=node.name,
            publishing=bool(self._settings.nats.servers),
        )

    async def _accept(self, request: ActionRequest, urgent: bool) -> Action:
        event = Event(
            request.action_id,
            0,
            State.INITIALIZED,
            request.type,
            datetime.now(UTC),
            pod=_pod(request),
            reason=request.spec.reason,
        )
        action, new = await self._bookkeeper.do(lambda book: book.accept(request, event))
        if new:
            self._tell(action.event)
            self._begin(Run(action, self._means, urgent=urgent))
        return action

    def _take_up(self, left: OpenAction) -> None:
        """What an earlier agent had not begun is begun, the rest is settled."""
        _log.info("taken up again", action_id=left.action.action_id, state=left.action.state.value)
        settle = left if left.attempt is not None else None
        self._begin(Run(left.action, self._means, settle=settle))

    def _begin(self, run: Run) -> None:
        self._runs[run.action_id] = run
        run.task.add_done_callback(lambda task: self._forget(run.action_id, task))

    def _forget(self, action_id: str, task: asyncio.Task[None]) -> None:
        del self._runs[action_id]
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.critical("an action was lost", action_id=action_id, exc_info=error)

    def _tell(self, event: Event) -> None:
        """An event is on disk: now everybody may know."""
        self._summary.reached(event)
        self._watchers.tell(event)
        self.outbox.changed.set()

    async def _tidy(self) -> None:
        """Forget old actions."""
        while True:
            before = datetime.now(UTC) - timedelta(days=self._settings.checkpoint.history_days)
            try:
                await self._bookkeeper.look(partial(Book.prune, before=before, keep=_HISTORY))
            except StoreFailed as error:
                _log.warning("cannot forget old actions", reason=str(error))
            await asyncio.sleep(_TIDYING)


def _pod(request: ActionRequest) -> PodRef | None:
    """The pod that a request names, where it names one."""
    spec = request.spec
    target = spec.target if isinstance(spec, CheckpointSpec) else spec.pod
    return target if isinstance(target, PodRef) else None
