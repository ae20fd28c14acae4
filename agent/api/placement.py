"""Which node gets an action: a checkpoint its pod's, a restore one that has room for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from agent.api.database.plain import plain
from agent.api.errors import EventStreamFailed, NoNode, NotCheckpointable
from agent.errors import PodAmbiguous
from agent.events import Control, Located
from agent.pb.checkpoint_agent.v1 import inventory_pb2 as pb
from agent.targets import PodRef

# Reasons for which a checkpoint's own node is out of the question.
LEAVING: Final = ("nodeTermination", "nodeUnschedulable")

# Pods that an error names at most.
_SHOWN: Final = 5


def node_of(control: Control, pod: PodRef, cluster: str | None) -> Located:
    """Where a pod is, exactly.

    Raises:
        EventStreamFailed: nobody can tell, because there is no broker.
        NotCheckpointable, PodAmbiguous
    """
    found = control.nodes.find(pod, cluster)
    if not control.ready:
        raise EventStreamFailed(control.problem)
    if not found:
        raise NotCheckpointable(str(pod))
    if len(found) > 1:
        raise PodAmbiguous(str(pod), _shown(found))
    return found[0]


def names_of(pod: pb.Pod) -> dict[str, str]:
    """The names that a pod's containers have given their checkpoints."""
    names = {each.name: each.checkpoint_name for each in pod.containers if each.checkpoint_name}
    # From containers' environment and labels, where anything may be.
    return dict(plain(names))


def node_for_restore(control: Control, cluster: str, home: str, reason: str) -> str:
    """The node to restore on.

    The one that the checkpoint comes from, if it is there and not about to leave: the bundle, and
    a store on the node's own disk, are there. Else the one that has the fewest actions, and among
    those the fewest pods; the name decides between equals.

    Raises:
        EventStreamFailed: nobody can tell, because there is no broker.
        NoNode: there is none.
    """
    live = [info for info in control.nodes.live() if info.cluster == cluster]
    if not control.ready:
        raise EventStreamFailed(control.problem)
    leaving = reason in LEAVING
    if not leaving and any(info.node == home for info in live):
        return home
    others = [info for info in live if info.node != home]
    if not others:
        raise NoNode(cluster, f" but {home!r}, which is to be left" if live else "")
    return min(others, key=_load).node


def _load(info: pb.NodeInfo) -> tuple[int, int, str]:
    return info.running + info.queued, len(info.pods), info.node


def _shown(found: Sequence[Located]) -> str:
    names = [
        f"{each.pod.ref.namespace}/{each.pod.ref.name} {each.pod.ref.uid} on {each.node}"
        for each in found[:_SHOWN]
    ]
    more = len(found) - len(names)
    return ", ".join(names) + (f" and {more} more" if more else "")
