"""Pods of a cluster: made for a restore, looked at, deleted."""

from __future__ import annotations

from typing import Final

from agent.cluster.answers import Object
from agent.cluster.connection import Kubernetes, path_of
from agent.cluster.pod import RESTORE_ACTION
from agent.cluster.pod_state import annotation_of, is_going, uid_of
from agent.cluster.refusals import PodExists, explained
from agent.errors import ClusterRefused, ClusterUnreachable

_NAMESPACES: Final = "api/v1/namespaces"

# Warnings about one pod that are asked for. Kubernetes counts repeated ones up instead of adding.
_EVENTS: Final = "50"


class Pods:
    """Names are hostile: they are quoted on their way into paths."""

    def __init__(self, kubernetes: Kubernetes) -> None:
        self._kubernetes = kubernetes

    async def read(self, namespace: str, name: str) -> Object | None:
        """A pod, if there is one.

        Raises:
            ClusterUnreachable, ClusterRefused
        """
        operation = f"read pod {namespace}/{name}"
        try:
            return await self._kubernetes.get(operation, _path(namespace, name))
        except ClusterRefused as error:
            if error.status == 404:
                return None
            raise explained(error) from error

    async def ensure(self, body: Object) -> Object | None:
        """The pod of a restore, made now or by an earlier try that was not heard of.

        Returns:
            None while another pod of that name is on its way out: it is worth another try.

        Raises:
            ClusterUnreachable: it may have been made; the next try tells.
            ClusterRefused
        """
        metadata = body["metadata"]
        namespace, name = metadata["namespace"], metadata["name"]
        operation = f"create pod {namespace}/{name}"
        try:
            made = await self._kubernetes.create(operation, _path(namespace), body)
            if not uid_of(made):
                raise ClusterUnreachable(operation, "the answer is no pod")
            return made
        except ClusterRefused as error:
            if error.status == 409 and error.reason != "AlreadyExists":
                # Of the quota's object: others have made pods in the same moment.
                raise ClusterUnreachable(operation, error.message) from error
            refused = explained(error)
            if not isinstance(refused, PodExists):
                raise refused from error
        there = await self.read(namespace, name)
        if there is None:
            return None
        if annotation_of(there, RESTORE_ACTION) == metadata["annotations"][RESTORE_ACTION]:
            # Also on its way out: somebody has deleted it, and does not want a second one.
            return there
        if is_going(there):
            return None
        raise refused

    async def made_for(self, namespace: str, name: str, action_id: str) -> Object | None:
        """The pod of a restore, if it was made.

        Raises:
            ClusterUnreachable, ClusterRefused
        """
        there = await self.read(namespace, name)
        mine = there is not None and annotation_of(there, RESTORE_ACTION) == action_id
        return there if mine else None

    async def delete(self, namespace: str, name: str, uid: str) -> None:
        """Delete a pod, unless it is another one by now or gone.

        Raises:
            ClusterUnreachable, ClusterRefused
        """
        operation = f"delete pod {namespace}/{name}"
        try:
            await self._kubernetes.delete(operation, _path(namespace, name), uid)
        except ClusterRefused as error:
            if error.status != 409:
                raise explained(error) from error

    async def warnings(self, namespace: str, uid: str) -> list[Object]:
        """The events that warn of something about a pod, oldest first; none if we may not know."""
        query = {"fieldSelector": f"involvedObject.uid={uid},type=Warning", "limit": _EVENTS}
        try:
            path = path_of(_NAMESPACES, namespace, "events")
            found = await self._kubernetes.get(f"list events of {namespace}", path, query)
        except (ClusterRefused, ClusterUnreachable):
            return []
        items = found.get("items")
        events = (
            [each for each in items if isinstance(each, dict)] if isinstance(items, list) else []
        )
        return sorted(events, key=lambda each: str(each.get("lastTimestamp") or ""))


def _path(namespace: str, *name: str) -> str:
    return path_of(_NAMESPACES, namespace, "pods", *name)
