"""A notice from Kubernetes: this node was cordoned, or bears the taint of one that is to go."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Mapping
from typing import Final

from agent.cluster.answers import Object
from agent.cluster.connection import Kubernetes, path_of
from agent.drain import Notice, Tell
from agent.errors import AgentError, ClusterRefused
from agent.logs import get_logger
from agent.settings import Cluster

log = get_logger(__name__)

# Taints of those who take nodes away, each before it does so: Kubernetes itself, its autoscaler,
# Karpenter (in two versions), GKE, and AWS' termination handler.
_TAINTS: Final = frozenset(
    {
        "node.kubernetes.io/out-of-service",
        "ToBeDeletedByClusterAutoscaler",
        "karpenter.sh/disrupted",
        "karpenter.sh/disruption",
        "cloud.google.com/impending-node-termination",
    }
)
_PREFIXES: Final = ("aws-node-termination-handler/",)

# Seconds until the API server is asked again after a failure, at first and at most: doubled each
# time, and halved at random so that a thousand nodes do not come back in the same instant.
_FIRST_RETRY, _LAST_RETRY = 1.0, 60.0
# Seconds. A watch that held for so long was a good one: whatever ends it, the next begins soon.
# Others are not allowed, or cut off by a proxy, as often as they are begun.
_STEADY: Final = 5.0
# A watch that is refused for its age begins anew.
_GONE: Final = 410


class NodeSource:
    """Watches one Node object. It holds until the node is uncordoned and the taints are gone."""

    name = "kubernetes"

    def __init__(self, settings: Cluster, environ: Mapping[str, str], node: str) -> None:
        """``node``: its name in the cluster, dots and all."""
        self._settings, self._environ, self._node = settings, environ, node
        self._retry = _FIRST_RETRY
        self._told = False
        self._complained = False

    async def watch(self, tell: Tell) -> None:
        """See Source."""
        while True:
            try:
                async with Kubernetes.connect(self._settings, self._environ) as kubernetes:
                    while True:
                        await self._follow(kubernetes, tell)
                        await self._back_off()
            except AgentError as error:
                too_old = isinstance(error, ClusterRefused) and error.status == _GONE
                # Once, until it answers again.
                if not too_old and not self._complained:
                    self._complained = True
                    log.warning("no word from the cluster about this node", reason=str(error))
                await self._back_off()

    async def _back_off(self) -> None:
        await asyncio.sleep(self._retry * random.uniform(0.5, 1))  # noqa: S311 - no secret
        self._retry = min(2 * self._retry, _LAST_RETRY)

    async def _follow(self, kubernetes: Kubernetes, tell: Tell) -> None:
        """The node as it is, and what happens to it for as long as a watch lasts."""
        path = path_of("api/v1/nodes", self._node)
        node = await kubernetes.get(f"read node {self._node}", path)
        self._look(node, tell)
        metadata = node.get("metadata")
        version = metadata.get("resourceVersion") if isinstance(metadata, dict) else None
        query = {"fieldSelector": f"metadata.name={self._node}"}
        watching = kubernetes.watch(
            f"watch node {self._node}", path_of("api/v1/nodes"), str(version or ""), query
        )
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            async with contextlib.aclosing(watching) as changes:
                async for seen in changes:
                    if seen.type in ("ADDED", "MODIFIED"):
                        self._look(seen.object, tell)
        finally:
            if clock() - began > _STEADY:
                self._retry, self._complained = _FIRST_RETRY, False

    def _look(self, node: Object, tell: Tell) -> None:
        reason = departure(node)
        if reason is not None or self._told:
            tell(None if reason is None else Notice(reason))
        self._told = reason is not None


def departure(node: Object) -> str | None:
    """Why a node is about to go, None when it is not. Whatever is not as it should be says no."""
    spec = node.get("spec")
    if not isinstance(spec, dict):
        return None
    taints = spec.get("taints")
    for taint in taints if isinstance(taints, list) else ():
        key = taint.get("key") if isinstance(taint, dict) else None
        if isinstance(key, str) and (key in _TAINTS or key.startswith(_PREFIXES)):
            return f"the node has the taint {key[:100]!a}"
    return "the node is cordoned" if spec.get("unschedulable") is True else None
