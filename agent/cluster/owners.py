"""Whose a pod was: a restored one is nobody's, and no controller may take it for one of its own.

A controller takes every pod without an owner that its selector fits, and deletes what it has then
too many of, the newest first: the one that was just restored. It has long made another one for the
pod that is gone. So a restored pod has no owner, and lacks the labels by which only a controller
selects; all others stay, and with them services and network policies.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from agent.cluster.shapes import objects, texts
from agent.errors import InvalidArgument

# Labels that controllers put on pods and select by.
_REPLICA_SET: Final = ("pod-template-hash", "rollouts-pod-template-hash")
_JOB: Final = ("controller-uid", "batch.kubernetes.io/controller-uid")
_SELECTED_BY: Final = (
    *_REPLICA_SET,
    *_JOB,
    "job-name",
    "batch.kubernetes.io/job-name",
    "pod-template-generation",
)

# A StatefulSet has the pods that are called like it with a number. One that still is goes on as one
# of its own; any other is not to be taken for it.
_STATEFUL_NAME: Final = "statefulset.kubernetes.io/pod-name"
_STATEFUL_SET: Final = (_STATEFUL_NAME, "apps.kubernetes.io/pod-index", "controller-revision-hash")


def labels_without_owner(metadata: Mapping[str, Any], name: str) -> dict[str, str]:
    """The labels of a pod that will be called ``name``. Raises InvalidArgument."""
    labels = texts(metadata.get("labels"), "pod_metadata_spec.labels")
    gone = set(_SELECTED_BY)
    if labels.get(_STATEFUL_NAME) != name:
        gone.update(_STATEFUL_SET)
    return {key: value for key, value in labels.items() if key not in gone}


def check_owner(metadata: Mapping[str, Any]) -> None:
    """Raises InvalidArgument if the pod's owner would take the new pod, and delete it."""
    labels = texts(metadata.get("labels"), "pod_metadata_spec.labels")
    field = "pod_metadata_spec.ownerReferences"
    for owner in objects(metadata.get("ownerReferences"), field):
        kind = owner.get("kind")
        by_hash = any(label in labels for label in _REPLICA_SET)
        takes = kind in ("ReplicationController", "DaemonSet") or (
            kind == "ReplicaSet" and not by_hash
        )
        if owner.get("controller") is True and takes:
            reason = (
                f"{kind} {owner.get('name')!r} would take the restored pod by its labels, and "
                "delete one that is too many; upload the metadata without those labels and owner"
            )
            raise InvalidArgument(field, reason)
