"""Takes over ACTION_EVENTS into the database: one instance at a time, the others stand by."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping, Sequence
from typing import Final

from agent.api.answers import is_uuid
from agent.api.database import Database, projection
from agent.api.database.connection import now
from agent.api.errors import DatabaseFailed
from agent.api.kept_pods import Keeper
from agent.api.metrics import ApiMetrics
from agent.api.placement import names_of
from agent.errors import BrokerFailed
from agent.events import Control, Position, StoredEvent
from agent.logs import get_logger
from agent.messages.model import ActionType, State
from agent.targets import PodRef

log = get_logger(__name__)

# Messages of one transaction: more would keep others from writing, fewer make more of them.
BATCH: Final = 500
# Seconds that one look waits for events; the lease is renewed in between.
_WAIT: Final = 3.0
# Seconds between two looks at whether it is our turn, and after something failed.
_STAND_BY: Final = 2.0
_RETRY: Final = 1.0


class Projector:
    """One instance's part in it."""

    def __init__(
        self,
        database: Database,
        control: Control,
        metrics: ApiMetrics,
        keeper: Keeper | None = None,
    ) -> None:
        self._database, self._control, self._metrics = database, control, metrics
        self._keeper = keeper
        self._holder = uuid.uuid4().hex
        self._problem = ""

    async def run(self) -> None:
        """Take turns with the others, until cancelled."""
        try:
            while True:
                try:
                    position = await projection.claim(self._database, self._holder)
                    self._metrics.projecting.set(position is not None)
                    if position is None:
                        await asyncio.sleep(_STAND_BY)
                    else:
                        await self._read_on(position)
                except (BrokerFailed, DatabaseFailed) as error:
                    self._note(str(error))
                    await asyncio.sleep(_RETRY)
        finally:
            self._metrics.projecting.set(0)

    async def stop(self) -> None:
        """Let another instance go on at once; after `run` was cancelled."""
        await projection.release(self._database, self._holder)

    async def _read_on(self, position: Position) -> None:
        """Read from ``position`` on until another one is faster.

        What came to nothing is taken over as well: the lease is renewed, and everybody knows that
        there is nothing more.
        """
        while True:
            # Before it is asked for: what comes while the answer is on its way may not be in it.
            asked = now()
            batch = await self._control.read(position, BATCH, _WAIT)
            self._note("")
            events = [each for each in batch.events if _is_ours(each)]
            mine = await projection.apply(
                self._database, self._holder, position, batch.position, events, self._names,
                asked if batch.at_end else None,
            )  # fmt: skip
            if not mine:
                return
            self._metrics.events.inc(len(events))
            self._metrics.position.set(batch.position.sequence)
            self._offer(events)
            position = batch.position

    def _offer(self, events: Sequence[StoredEvent]) -> None:
        """Have the pods kept of which a checkpoint has just begun."""
        if self._keeper is None:
            return
        for stored in events:
            event = stored.event
            if event is None or event.pod is None or event.type is not ActionType.CHECKPOINT:
                continue
            if event.state is State.PROCESSING and event.progress is None:
                self._keeper.offer(event.action_id, stored.cluster, event.pod)

    def _names(self, cluster: str, pod: PodRef) -> Mapping[str, str]:
        found = self._control.nodes.find(pod, cluster)
        return names_of(found[0].pod) if len(found) == 1 else {}

    def _note(self, problem: str) -> None:
        """Say what is wrong, unless it is what was wrong the last time."""
        if problem and problem != self._problem:
            log.warning("events are not taken over; trying again", reason=problem)
        self._problem = problem


def _is_ours(stored: StoredEvent) -> bool:
    """Whether the contract has a place for it: it knows actions by their UUIDs only."""
    return stored.event is not None and is_uuid(stored.event.action_id)
