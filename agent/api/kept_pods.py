"""Keeps what a pod was with its checkpoint, so that it can be made again when it is gone.

When a node begins with a checkpoint, the pod is there, whoever has asked for it; when it is drained
or deleted, there is nobody left to ask. What a client uploads goes before what is read here.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Final

from agent.api.database import Database
from agent.api.database import pods as table
from agent.api.database.connection import now
from agent.api.database.pods import Kept
from agent.api.database.tables import ActionRow
from agent.api.errors import DatabaseFailed
from agent.cluster.pod_state import uid_of
from agent.cluster.pods import Pods
from agent.errors import ClusterRefused, ClusterUnreachable
from agent.logs import get_logger
from agent.targets import PodRef

log = get_logger(__name__)

# Pods that are read at the same time, and that wait for it. A read takes some 10 ms.
_AT_ONCE: Final = 4
_WAITING: Final = 10_000
# Seconds until a pod is given up: later, it is gone or another one.
_PATIENCE: Final = 600.0
# Seconds between two tries.
_RETRY: Final = 2.0

# Of metadata: which client has set which field, longer than all the rest.
_SUPERFLUOUS: Final = ("managedFields",)


@dataclass(frozen=True, slots=True)
class _Offer:
    """A checkpoint that has begun. ``began`` is the loop's time."""

    action_id: str
    pod: PodRef
    began: float


class Keeper:
    """One instance's; several do the same without harm.

    Attributes:
        cluster: of which pods are kept, as nodes call it.
    """

    def __init__(self, database: Database, pods: Pods, cluster: str) -> None:
        self.cluster = cluster
        self._database, self._pods = database, pods
        self._offers: asyncio.Queue[_Offer] = asyncio.Queue(_WAITING)

    def offer(self, action_id: str, cluster: str, pod: PodRef) -> None:
        """A checkpoint of a pod has begun; it is kept soon, if it is one of this cluster."""
        if cluster != self.cluster or not (pod.uid and pod.namespace and pod.name):
            return
        self._put(_Offer(action_id, pod, asyncio.get_running_loop().time()))

    async def run(self) -> None:
        """Keep what is offered, until cancelled; and first, what an API that died had not."""
        since = now() - int(_PATIENCE * 1e6)
        try:
            async with self._database.read() as session:
                for row in await table.lacking(session, self.cluster, since):
                    self.offer(row.action_id, row.cluster, _pod(row))
        except DatabaseFailed as error:
            log.warning("pods of an earlier start are not kept", reason=str(error))
        async with asyncio.TaskGroup() as group:
            for _ in range(_AT_ONCE):
                group.create_task(self._keep_on())

    async def kept(self, source: ActionRow) -> Kept | None:
        """What is known of a checkpoint's pod, which is read now if it never was.

        Returns:
            None where nothing was kept and the cluster has no such pod any more, or never had.

        Raises:
            ClusterUnreachable, ClusterRefused, DatabaseFailed
        """
        async with self._database.read() as session:
            found = await table.kept_of(session, source)
        if found is not None or not (source.pod_namespace and source.pod_name):
            return found
        return await self._read(source.action_id, _pod(source))

    async def _keep_on(self) -> None:
        while True:
            offer = await self._offers.get()
            try:
                await self._read(offer.action_id, offer.pod)
            except (ClusterUnreachable, DatabaseFailed) as error:
                await self._later(offer, error)
            except ClusterRefused as error:
                log.warning("a pod is not kept", action_id=offer.action_id, reason=str(error))

    async def _later(self, offer: _Offer, error: ClusterUnreachable | DatabaseFailed) -> None:
        if asyncio.get_running_loop().time() - offer.began > _PATIENCE:
            log.warning("a pod is not kept", action_id=offer.action_id, reason=str(error))
            return
        await asyncio.sleep(_RETRY)
        self._put(offer)

    def _put(self, offer: _Offer) -> None:
        try:
            self._offers.put_nowait(offer)
        except asyncio.QueueFull:
            log.warning(
                "a pod is not kept: too many wait", action_id=offer.action_id, pod=str(offer.pod)
            )

    async def _read(self, action_id: str, pod: PodRef) -> Kept | None:
        found = await self._pods.read(pod.namespace, pod.name)
        if found is None or uid_of(found) != pod.uid:
            return None
        kept = Kept(found.get("spec"), _without(found.get("metadata")))
        async with self._database.write() as session:
            await table.keep(session, action_id, kept)
        return kept


def _pod(row: ActionRow) -> PodRef:
    return PodRef(row.pod_uid, row.pod_namespace, row.pod_name)


def _without(metadata: Any) -> Any:  # noqa: ANN401 - any JSON
    if not isinstance(metadata, dict):
        return metadata
    return {key: value for key, value in metadata.items() if key not in _SUPERFLUOUS}
