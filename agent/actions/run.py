"""One action from its acceptance to its end, whatever happens.

Two tasks: the inner one does the work and may be cancelled at any time; the outer one waits for it
and writes down how it ended, and is cancelled by nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime

from agent.actions import retry
from agent.actions.book import Book
from agent.actions.bookkeeper import Bookkeeper
from agent.actions.failure import failure_of
from agent.actions.meter import Meter
from agent.actions.rows import OpenAction
from agent.actions.settling import find_out, unknown
from agent.actions.summary import Summary
from agent.actions.turns import Turns
from agent.actions.worker import Outcome, Plan, Reports, Worker
from agent.errors import AgentError, DumpFailed, RestoreFailed, RestoreNotUndone, StoreFailed
from agent.host.boot import Moment
from agent.logs import about, get_logger
from agent.messages.model import (
    Action,
    CheckpointOutcome,
    Event,
    Failure,
    RestoreOutcome,
    RestoreSpec,
    State,
)
from agent.report import Update

# What giving up may look like from outside: runc and CRIU are made to fail, so that they roll back.
_ECHOES = (asyncio.CancelledError, DumpFailed, RestoreFailed, StoreFailed)

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Means:
    """What every run needs, and shares with the others."""

    worker: Worker
    turns: Turns
    bookkeeper: Bookkeeper
    # Called with each event once it is on disk.
    tell: Callable[[Event], None]
    summary: Summary
    # Seconds to find out for what became of an action that a dead agent had begun.
    patience: float


class Run:
    """An action under way. Begins when made."""

    def __init__(
        self,
        action: Action,
        means: Means,
        *,
        settle: OpenAction | None = None,
        urgent: bool = False,
    ) -> None:
        """``settle``: a dead agent had begun it; only find out what became of it."""
        self.request = action.request
        self.begun = self.settling = settle is not None
        spec = action.request.spec
        # What others go on with, although the agent that watched it has died.
        self.watching = self.settling and isinstance(spec, RestoreSpec) and spec.pod is not None
        self._means, self._settle, self._urgent = means, settle, urgent
        self.pod = action.event.pod
        self._state = action.state
        self._captured: CheckpointOutcome | None = None
        self._writing: set[asyncio.Task[None]] = set()
        self._telling_progress = False
        self._given_up: AgentError | None = None
        self._leave_open = False
        self._work = asyncio.create_task(self._working())
        self.task = asyncio.create_task(self._see_through())

    @property
    def action_id(self) -> str:
        """The action's."""
        return self.request.action_id

    def give_up(self, why: AgentError) -> None:
        """End it as an error of this kind, after everything is put back. Wait for ``task``.

        What is only being settled is over already: it ends at once, as nobody knows what.
        """
        # Once: a second cancellation would cut the rollback short that the first one has begun.
        if not (self._work.done() or self._leave_open or self._given_up):
            left = self._settle
            if left is not None and left.attempt is not None:
                self._given_up = unknown(self.request, left.attempt, str(why))
            else:
                self._given_up = why
            _log.info("giving up", action_id=self.action_id, reason=why.code)
            self._work.cancel()

    def leave(self) -> None:
        """Stop, and let the next start of the agent take it up again."""
        if not (self._work.done() or self._given_up):
            self._leave_open = True
            self._work.cancel()

    async def _working(self) -> Outcome:
        with about(action_id=self.action_id):
            if self._settle is not None:
                return await find_out(self._means.worker, self._settle, self._means.patience)
            plan = await self._means.worker.examine(self.request)
            self.pod = plan.pod or self.pod
            async with self._means.turns.turn(
                plan.keys, slot=not plan.watches, urgent=self._urgent
            ) as turn:
                self.begun, self.watching = True, plan.watches
                await self._begin(plan)
                meter = Meter()

                def captured(outcome: CheckpointOutcome) -> None:
                    self._write(self._be_captured(outcome))
                    if plan.asynchronous:
                        turn.give_slot_back()

                def progress(update: Update) -> None:
                    self._progress(meter, update)

                return await self._means.worker.run(
                    self.request, plan, Reports(progress=progress, captured=captured)
                )

    async def _begin(self, plan: Plan) -> None:
        event, begun = self._event(State.PROCESSING), Moment.now()

        def begin(book: Book) -> Event:
            book.attempt(self.action_id, plan.attempt, begun)
            return book.advance(event)

        self._state = State.PROCESSING
        self._means.tell(await self._means.bookkeeper.do(begin))

    async def _see_through(self) -> None:
        with about(action_id=self.action_id):
            await asyncio.wait({self._work})
            if self._work.cancelled() and self._given_up is None and self._leave_open:
                return
            failure = self._failure()
            if failure is None:
                outcome = self._work.result()
                event = self._event(State.READY, outcome)
            else:
                event = dataclasses.replace(self._event(State.ERROR), failure=failure)
            if self._writing:
                await asyncio.wait(self._writing)
            event = await self._record_end(event)
            self._means.tell(event)
            self._means.summary.ended(event)

    def _failure(self) -> Failure | None:
        """Why it did not work."""
        if self._work.cancelled():
            error: BaseException | None = self._given_up or asyncio.CancelledError()
        else:
            error = self._work.exception()
        if error is None:
            return None
        echo = isinstance(error, _ECHOES) and not isinstance(error, RestoreNotUndone)
        if self._given_up is not None and echo:
            error = self._given_up
        if not isinstance(error, AgentError):
            _log.error("unexpected error; please report it", exc_info=error)
        return failure_of(error, self.request.type)

    async def _record_end(self, event: Event) -> Event:
        try:
            return await self._record(event)
        except (TypeError, ValueError) as error:
            # It cannot be put into words: a bug, but whoever waits has to hear of an end.
            _log.error("unexpected error; please report it", exc_info=error)
            failure = failure_of(error, self.request.type)
        return await self._record(dataclasses.replace(self._event(State.ERROR), failure=failure))

    async def _record(self, event: Event) -> Event:
        """Write a state down; when the journal cannot be written, as soon as it can be."""
        delay = retry.FIRST
        while True:
            try:
                return await self._means.bookkeeper.do(lambda book: book.advance(event))
            except StoreFailed as error:
                _log.error("the journal cannot be written; trying again", reason=str(error))
                delay = await retry.pause(delay)

    def _progress(self, meter: Meter, update: Update) -> None:
        progress = meter.update(update)
        # One at a time: behind a slow disk nothing piles up.
        if progress is None or self._telling_progress:
            return
        self._telling_progress = True
        event = dataclasses.replace(self._event(self._state, self._captured), progress=progress)
        self._write(self._tell_progress(event))

    async def _tell_progress(self, event: Event) -> None:
        try:
            # It stands behind `checkpoint_created`, if that came meanwhile, and must not undo it.
            event = dataclasses.replace(
                event, state=self._state, checkpoint=self._captured, time=datetime.now(UTC)
            )
            advance = self._means.bookkeeper.look(lambda book: book.advance(event))
            with contextlib.suppress(StoreFailed):
                self._means.tell(await advance)
        finally:
            self._telling_progress = False

    async def _be_captured(self, outcome: CheckpointOutcome) -> None:
        self._captured, self._state = outcome, State.CHECKPOINT_CREATED
        self._means.tell(await self._record(self._event(State.CHECKPOINT_CREATED, outcome)))

    def _write(self, writing: Coroutine[None, None, None]) -> None:
        """In the order of the calls: tasks start in that order, and so the book is asked."""
        task = asyncio.create_task(writing)
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)

    def _event(self, state: State, outcome: Outcome | None = None) -> Event:
        return Event(
            action_id=self.action_id,
            sequence=0,
            state=state,
            type=self.request.type,
            time=datetime.now(UTC),
            pod=self.pod,
            checkpoint=outcome if isinstance(outcome, CheckpointOutcome) else None,
            restore=outcome if isinstance(outcome, RestoreOutcome) else None,
            reason=self.request.spec.reason,
        )
