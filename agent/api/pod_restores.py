"""Restores for which Kubernetes makes a pod: created, looked at until a node has it, or ended.

A restore is promised when its row is stored. From then on any instance brings it about: it creates
the pod, which carries the action's id and its own name, so that a second try finds the first one's;
and looks at it until the node that kubelet starts it on reports for the action. Nothing is done for
a row but in here, so it does not matter who dies in between.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any, Final

from agent.api.database import Database, projection
from agent.api.database import actions as actions_table
from agent.api.database import pods as table
from agent.api.database.connection import now
from agent.api.database.tables import ActionRow
from agent.api.errors import DatabaseFailed
from agent.api.failures import failure_of
from agent.api.kept_pods import Keeper
from agent.api.metrics import ApiMetrics
from agent.api.pod_errors import (
    PodBug,
    PodGone,
    PodLeft,
    PodNotCreated,
    PodNotStarted,
    SourceGone,
)
from agent.api.pod_request import pod_for
from agent.cluster.pod_state import has_started, is_going, is_over, reasons, uid_of
from agent.cluster.pods import Pods
from agent.errors import AgentError, ClusterRefused, ClusterUnreachable
from agent.events import Control
from agent.logs import get_logger

log = get_logger(__name__)

# Restores that are worked on at the same time.
_AT_ONCE: Final = 16
# Seconds between two looks at all that wait, and until a pod is tried to be made again.
_PERIOD: Final = 5.0
_RETRY: Final = 2.0
# Seconds beyond its time in which a cluster that does not answer is asked again: a pod that is
# there has to be deleted, or it may start when nobody waits for it any more.
_LAST_TRIES: Final = 60.0
# Seconds that events get to arrive from a broker that was away, before anybody is given up.
_CATCH_UP: Final = 10.0
# Seconds. What nodes say is taken over within 3, and within 15 when another instance has to go on.
_BEHIND: Final = 15.0


class PodRestores:
    """One instance's; several do the same without harm.

    Attributes:
        keeper: knows what pods were.
    """

    def __init__(
        self,
        database: Database,
        control: Control,
        metrics: ApiMetrics,
        pods: Pods,
        keeper: Keeper,
        pending_seconds: float,
    ) -> None:
        self.keeper = keeper
        self._database, self._control, self._metrics = database, control, metrics
        self._pods = pods
        self._pending_seconds = pending_seconds
        self._asked = asyncio.Event()
        self._places = asyncio.Semaphore(_AT_ONCE)
        # Of which the log says already that the cluster does not answer.
        self._unseen: set[str] = set()

    def wake(self) -> None:
        """There is a new one."""
        self._asked.set()

    async def run(self) -> None:
        """See to all that wait, again and again, until cancelled."""
        period = min(_PERIOD, self._pending_seconds / 4)
        clock = asyncio.get_running_loop().time
        look = clock()
        while True:
            self._asked.clear()
            everyone = clock() >= look
            if everyone:
                look = clock() + period
            try:
                async with self._database.read() as session:
                    rows = await table.waiting(session)
                self._unseen.intersection_update(row.action_id for row in rows)
                await self.see_to([row for row in rows if everyone or not row.pod_uid])
                again = any(not row.pod_uid for row in rows)
            except DatabaseFailed as error:
                log.warning("pods are not looked at; trying again", reason=str(error))
                again = True
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(min(look, clock() + _RETRY) if again else look):
                    await self._asked.wait()

    async def see_to(self, rows: Sequence[ActionRow]) -> None:
        """Bring each one step further. Raises DatabaseFailed."""
        results = await asyncio.gather(*(self._see_to(row) for row in rows), return_exceptions=True)
        for result in results:
            if result is not None:
                raise result

    async def _see_to(self, row: ActionRow) -> None:
        async with self._places:
            try:
                if row.pod_uid:
                    await self._look(row)
                else:
                    await self._create(row)
                self._unseen.discard(row.action_id)
            except ClusterUnreachable as error:
                await self._later(row, error)
            except DatabaseFailed:
                raise
            except AgentError as error:
                await self._end(row, error)
            except Exception:
                # One restore must not end the process, and again whenever it is started.
                log.exception("a bug: pod not seen to", action_id=row.action_id)
                await self._end(row, PodBug())

    async def _later(self, row: ActionRow, error: ClusterUnreachable) -> None:
        if await self._is_late(row, min(_LAST_TRIES, self._pending_seconds)):
            await self._end(row, error)
            return
        if row.action_id not in self._unseen:
            self._unseen.add(row.action_id)
            log.warning("pod not seen to; trying again", action_id=row.action_id, reason=str(error))
        await asyncio.sleep(min(error.retry_after, _PERIOD))

    async def _create(self, row: ActionRow) -> None:
        if self._waited(row) > self._pending_seconds:
            # Nobody was there to do it, or a pod of that name did not go. It is not made that late;
            # but it may have been made, and not heard of.
            pod = await self._pods.made_for(row.pod_namespace, row.pod_name, row.action_id)
            if pod is None:
                raise PodNotCreated(_name(row), self._waited(row), "it could not be created")
        else:
            body = await self._body(row)
            pod = await self._pods.ensure(body) if body is not None else None
            if pod is None:
                return
        async with self._database.write() as session:
            wanted = await table.made(session, row.action_id, uid_of(pod))
        log.info("pod created", action_id=row.action_id, pod=_name(row), uid=uid_of(pod))
        if not wanted:
            await self._pods.delete(row.pod_namespace, row.pod_name, uid_of(pod))

    async def _body(self, row: ActionRow) -> dict[str, Any] | None:
        """None where somebody else was faster: a row may have waited for minutes, and its pod have
        come and gone.
        """
        async with self._database.read() as session:
            now_is = await actions_table.get(session, row.action_id)
            if now_is is None or not table.waits_for_pod(now_is) or now_is.pod_uid:
                return None
            source = await actions_table.get(session, row.restored_from or "")
            kept = await table.kept_of(session, source) if source is not None else None
        if source is None or kept is None:
            raise SourceGone(row.restored_from or "")
        return pod_for(source, kept, action_id=row.action_id, reason=row.reason, name=row.pod_name)

    async def _look(self, row: ActionRow) -> None:
        if not await self._is_heard():
            # Whatever the pod is by now, its node may have restored it and said so.
            return
        pod = await self._pods.read(row.pod_namespace, row.pod_name)
        if pod is None or uid_of(pod) != row.pod_uid or is_going(pod):
            raise PodGone(_name(row))
        over = is_over(pod)
        if not over and not await self._is_late(row):
            return
        events = await self._pods.warnings(row.pod_namespace, row.pod_uid)
        why = reasons(pod, events)
        if over or has_started(pod):
            raise PodLeft(_name(row), self._waited(row), why)
        try:
            # First, so that whoever hears of the error and restores again does not get two of it.
            await self._pods.delete(row.pod_namespace, row.pod_name, row.pod_uid)
        except ClusterRefused as error:
            why = f"{why}; {error}"
            raise PodLeft(_name(row), self._waited(row), why) from error
        raise PodNotStarted(_name(row), self._waited(row), why)

    async def _end(self, row: ActionRow, error: AgentError) -> None:
        """With an error, unless a node was heard of meanwhile."""
        async with self._database.write() as session:
            ended = await actions_table.give_up(
                session, row.action_id, failure_of(error), seen=row.sequence
            )
        if ended:
            log.warning("restore given up", action_id=row.action_id, reason=str(error))
            self._metrics.given_up.labels(error.code).inc()

    def _waited(self, row: ActionRow) -> float:
        return (now() - row.created) / 1e6

    async def _is_late(self, row: ActionRow, beyond: float = 0.0) -> bool:
        """Whether its time is up, and so many seconds more.

        While nodes cannot be heard, it is not: one may be at it.
        """
        return self._waited(row) > self._pending_seconds + beyond and await self._is_heard()

    async def _is_heard(self) -> bool:
        """Whether all that nodes have said is here, and taken over."""
        since = self._control.nodes.steady_since
        catch_up = min(_CATCH_UP, self._pending_seconds)
        if since is None or asyncio.get_running_loop().time() - since <= catch_up:
            return False
        async with self._database.read() as session:
            return (now() - await projection.caught_up(session)) / 1e6 < _BEHIND


def _name(row: ActionRow) -> str:
    return f"{row.pod_namespace}/{row.pod_name}"
