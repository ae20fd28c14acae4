"""Ends actions that nobody else will: their node is gone, or the API died before they were sent."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from typing import ClassVar, Final

from agent.api.database import actions as table
from agent.api.database import projection
from agent.api.database.connection import now
from agent.api.database.pods import waits_for_pod
from agent.api.database.tables import ActionRow
from agent.api.errors import DatabaseFailed
from agent.api.intake import give_up
from agent.api.parts import Parts
from agent.errors import AgentError, ClusterUnreachable
from agent.logs import get_logger

log = get_logger(__name__)

# Seconds. An API that died had begun to publish at most so long ago.
NEVER_SENT: Final = 30.0
# Seconds. ACTIONS forgets what nobody took after a day (proto/EVENTS.md).
NEVER_TAKEN: Final = 86_400.0 + 3_600.0

# Actions of one look, and seconds between two sweeps.
_AT_ONCE: Final = 10_000
_PERIOD: Final = 10.0


@dataclass(eq=False)
class NodeLost(AgentError):
    """The node is not there any more."""

    exit_code: ClassVar[int] = 18
    code: ClassVar[str] = "node_lost"
    template: ClassVar[str] = "node {node!r} has not been heard of for {seconds:.0f} s"
    state: ClassVar[str] = "unknown: what ran there is most likely gone with the node"
    hint: ClassVar[str] = "restore the latest checkpoint on another node"

    node: str
    seconds: float


@dataclass(eq=False)
class NeverSent(AgentError):
    """The API ended between storing the action and publishing it."""

    exit_code: ClassVar[int] = 18
    code: ClassVar[str] = "never_sent"
    template: ClassVar[str] = "the API ended before the event stream had confirmed the action"
    state: ClassVar[str] = "nothing was begun, or it is given up"
    hint: ClassVar[str] = "ask for it again"


@dataclass(eq=False)
class NeverTaken(AgentError):
    """The event stream has dropped it."""

    exit_code: ClassVar[int] = 18
    code: ClassVar[str] = "never_taken"
    template: ClassVar[str] = "node {node!r} did not take the action within a day"
    state: ClassVar[str] = "nothing was begun"
    hint: ClassVar[str] = "look at the agent's log on that node, then ask for it again"

    node: str


class Sweeper:
    """One instance's; several do the same without harm."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._lost_seconds = parts.settings.api.node_lost_seconds

    async def run(self) -> None:
        """Sweep again and again, until cancelled."""
        period = min(_PERIOD, self._lost_seconds)
        while True:
            await asyncio.sleep(period * random.uniform(0.5, 1))  # noqa: S311 - no secret
            try:
                await self.sweep()
            except DatabaseFailed as error:
                log.warning("not swept; trying again", reason=str(error))

    async def sweep(self) -> None:
        """End what has to be ended now."""
        youngest = now() - int(min(NEVER_SENT, self._lost_seconds) * 1e6)
        async with self._parts.database.write() as session:
            await table.forget_old_keys(session)
        last = None
        while True:
            # All of them: thousands may wait for their turn on a node that is there.
            async with self._parts.database.read() as session:
                heard = await projection.caught_up(session)
                rows = await table.unheard_of(session, youngest, _AT_ONCE, last)
            for row in rows:
                await self._judge(row, heard)
            if len(rows) < _AT_ONCE:
                return
            last = rows[-1]

    async def _judge(self, row: ActionRow, heard: int) -> None:
        """End one action, if it has to be; until ``heard`` all that nodes said is known."""
        error = self._verdict(row, heard)
        if error is None:
            return
        database, control = self._parts.database, self._parts.control
        unsent = isinstance(error, NeverSent)
        if await give_up(database, control, row, error, seen=row.sequence, unsent=unsent):
            self._parts.metrics.given_up.labels(error.code).inc()

    def _verdict(self, row: ActionRow, heard: int) -> AgentError | None:
        """Why an action has to be ended; None if there is hope."""
        # What waits in the stream is not silence: after a database was away that may be its end.
        silent = (min(now(), heard) - row.updated) / 1e6
        if waits_for_pod(row):
            return self._without_pod(row, silent)
        if not row.handed_over and (now() - row.updated) / 1e6 > NEVER_SENT:
            return NeverSent()
        if row.sequence < 0 and silent > NEVER_TAKEN:
            return NeverTaken(row.node)
        if silent > self._lost_seconds and self._is_gone(row):
            return NodeLost(row.node, silent)
        return None

    def _without_pod(self, row: ActionRow, silent: float) -> AgentError | None:
        """PodRestores see to it, unless the access they need was taken away since."""
        if self._parts.pods is not None or silent < self._lost_seconds:
            return None
        pod = f"{row.pod_namespace}/{row.pod_name}"
        return ClusterUnreachable(f"look after pod {pod}", "there is no [cluster] any more")

    def _is_gone(self, row: ActionRow) -> bool:
        """Whether the node was not there for so long, as far as we have seen."""
        since = self._parts.control.nodes.gone_since(row.cluster, row.node)
        now_is = asyncio.get_running_loop().time()
        return since is not None and now_is - since >= self._lost_seconds
