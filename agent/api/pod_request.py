"""A restore as the pod that is to be created for it, and where that pod may go."""

from __future__ import annotations

import re
from typing import Any, Final
from urllib.parse import urlsplit

from agent.api.database.pods import Kept
from agent.api.database.tables import ActionRow
from agent.api.placement import LEAVING
from agent.cluster.pod import Restoration, restored_pod
from agent.errors import InvalidArgument

# Stores that every node can reach. All others are taken to be one node's own.
_SHARED: Final = ("s3", "gs", "az")

_NODE: Final = re.compile(r"[a-z0-9][-.a-z0-9]{0,252}")


def pod_for(
    source: ActionRow, kept: Kept, *, action_id: str, reason: str, name: str
) -> dict[str, Any]:
    """What to create for a restore of ``source``.

    Args:
        kept: of the pod that was checkpointed.
        name: "" is its own.

    Raises:
        InvalidArgument: no pod can be made of it, or it could not run anywhere.
    """
    if not source.pod_namespace:
        raise InvalidArgument("action_id", "nobody knows the namespace of the checkpoint's pod")
    metadata = kept.metadata
    if metadata is None or (isinstance(metadata, dict) and "name" not in metadata):
        # The node that has taken the checkpoint knows that much.
        metadata = {**(metadata or {}), "name": source.pod_name}
    leave, node = _where(source, kept, reason)
    wanted = Restoration(
        path=source.path or "",
        action_id=action_id,
        namespace=source.pod_namespace,
        name=name,
        leave=leave,
        node=node,
    )
    return restored_pod(kept.spec, metadata, wanted)


def _where(source: ActionRow, kept: Kept, reason: str) -> tuple[str | None, str | None]:
    """The node to stay away from, and the only one that will do."""
    home = _node_name(source, kept)
    path = source.path or ""
    shared = urlsplit(path).scheme in _SHARED
    if reason in LEAVING:
        if not shared:
            raise InvalidArgument(
                "reason",
                f"the checkpoint is on the disk of node {home!r} ({path}), which is to be left; "
                "[storage] store has to be an object store for that",
            )
        return home, None
    return None, None if shared else home


def _node_name(source: ActionRow, kept: Kept) -> str | None:
    """What Kubernetes calls the node that the checkpoint comes from."""
    said = kept.spec.get("nodeName") if isinstance(kept.spec, dict) else None
    if isinstance(said, str) and _NODE.fullmatch(said):
        return said
    # [node] name has underscores for the dots, and names of nodes have none of their own.
    name = source.node.replace("_", ".")
    return name if _NODE.fullmatch(name) else None
