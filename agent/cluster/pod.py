"""The pod that goes on where a checkpointed one was: its spec without what made it that one.

What a cluster's admission adds by itself is taken out, because it adds it again, and refuses a pod
that brings another answer than its own. docs/kubernetes.md lists what is changed and why.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, Final

from agent.cluster.affinity import NodeCondition, with_condition, without_condition
from agent.cluster.answers import Object
from agent.cluster.owners import check_owner, labels_without_owner
from agent.cluster.shapes import objects, texts
from agent.errors import InvalidArgument

RUNTIME_CLASS: Final = "checkpoint-runc"
RESTORE: Final = "checkpoint-agent/restore"
RESTORE_ACTION: Final = "checkpoint-agent/restore-action"
RESTORED: Final = "checkpoint-agent/restored"
# What was added to the affinity. A pod that is restored from node to node would in the end be one
# that may go to none of them.
RESTORE_NODE: Final = "checkpoint-agent/restore-node"

# As Kubernetes has it for pods: a DNS subdomain.
_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LONGEST: Final = 253

# Of the node it was on; of debugging; and what admission computes from the classes that stay.
_SPEC_GONE: Final = (
    "nodeName",
    "ephemeralContainers",
    "schedulingGates",
    "priority",
    "preemptionPolicy",
    "overhead",
)

# Of the sandbox that is gone: addresses and devices in the words of various networks; of files on
# a node, where the pod was a static one; and of a file of several megabytes at worst.
_ANNOTATIONS_GONE: Final = (
    "cni.projectcalico.org/",
    "k8s.ovn.org/",
    "k8s.v1.cni.cncf.io/network-status",
    "k8s.v1.cni.cncf.io/networks-status",
    "kubernetes.io/config.",
    "kubectl.kubernetes.io/last-applied-configuration",
    RESTORE,
    RESTORE_ACTION,
    RESTORE_NODE,
)

_TOKEN_VOLUME: Final = "kube-api-access-"  # noqa: S105 - a volume's name
# Before Kubernetes 1.21: NAME-token-xxxxx, of a secret.
_TOKEN_SECRET: Final = re.compile(r".+-token-[a-z0-9]{5}")

# What the admission plugin DefaultTolerationSeconds gives to every pod.
_DEFAULT_TOLERATED: Final = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
_DEFAULT_SECONDS: Final = 300

# Another checkpoint's path there would be restored instead.
_RESTORE_VARIABLE: Final = "CHECKPOINT_RESTORE"


@dataclass(frozen=True, slots=True)
class Restoration:
    """What a pod is to be made for.

    Attributes:
        path: of the checkpoint, as the node's agent takes it.
        name: "" is that of the pod that was checkpointed.
        leave: the node that it must not go to.
        node: the only node that it may go to.
    """

    path: str
    action_id: str
    namespace: str
    name: str = ""
    leave: str | None = None
    node: str | None = None

    @property
    def condition(self) -> NodeCondition | None:
        """What its affinity has to say of nodes."""
        if self.node is not None:
            return NodeCondition("In", self.node)
        return NodeCondition("NotIn", self.leave) if self.leave is not None else None


def restored_pod(spec: object, metadata: object, wanted: Restoration) -> Object:
    """A pod to create, made of what was kept of another one; neither is changed.

    Raises:
        InvalidArgument: naming the field, for whatever of it is no pod's. What only the cluster can
            judge is left to it.
    """
    given = _mapping(spec, "pod_spec")
    known = _mapping(metadata if metadata is not None else {}, "pod_metadata_spec")
    name = pod_name(known, wanted.name)
    namespace = known.get("namespace", wanted.namespace)
    if namespace != wanted.namespace:
        # Or a checkpoint of one namespace would let its owner start pods in any other.
        raise InvalidArgument(
            "pod_metadata_spec.namespace", f"the checkpoint is of namespace {wanted.namespace!r}"
        )
    check_owner(known)
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": wanted.namespace,
            "labels": labels_without_owner(known, name) | {RESTORED: "true"},
            "annotations": _annotations(known, wanted),
        },
        "spec": _spec(given, _condition(known), wanted.condition),
    }


def pod_name(metadata: Mapping[str, Any], override: str) -> str:
    """What the new pod is called. Raises InvalidArgument if a pod cannot be called so."""
    field = "overrides.pod_name" if override else "pod_metadata_spec.name"
    name = override or metadata.get("name")
    if not isinstance(name, str) or len(name) > _LONGEST or not _NAME.fullmatch(name):
        raise InvalidArgument(field, "must be a pod's name: small letters, digits, '-' and '.'")
    return name


def _spec(
    given: Mapping[str, Any], former: NodeCondition | None, wanted: NodeCondition | None
) -> Object:
    """``former`` is what an earlier restore has added to the affinity, ``wanted`` this one's."""
    spec = {key: copy.deepcopy(each) for key, each in given.items() if key not in _SPEC_GONE}
    if spec.get("serviceAccountName"):
        # The older name of the same.
        spec.pop("serviceAccount", None)
    volumes = objects(spec.get("volumes"), "pod_spec.volumes")
    tokens = {str(each["name"]) for each in volumes if _holds_token(each)}
    _replace(spec, "volumes", [each for each in volumes if not _is_named(each, tokens)])
    containers = objects(spec.get("containers"), "pod_spec.containers")
    if not containers:
        raise InvalidArgument("pod_spec.containers", "there are none")
    sidecars = [
        each
        for each in objects(spec.get("initContainers"), "pod_spec.initContainers")
        if each.get("restartPolicy") == "Always"
    ]
    for container in (*containers, *sidecars):
        _clear(container, tokens)
    spec["containers"] = containers
    _replace(spec, "initContainers", sidecars)
    tolerations = objects(spec.get("tolerations"), "pod_spec.tolerations")
    _replace(spec, "tolerations", [each for each in tolerations if not _is_default(each)])
    spec["runtimeClassName"] = RUNTIME_CLASS
    if former is not None:
        spec["affinity"] = without_condition(spec.get("affinity"), former)
        if not spec["affinity"]:
            del spec["affinity"]
    if wanted is not None:
        spec["affinity"] = with_condition(spec.get("affinity"), wanted)
    return spec


def _clear(container: Object, token_volumes: AbstractSet[str]) -> None:
    field = "pod_spec.containers.volumeMounts"
    mounts = objects(container.get("volumeMounts"), field)
    kept = [each for each in mounts if not _is_named(each, token_volumes)]
    _replace(container, "volumeMounts", kept)
    env = objects(container.get("env"), "pod_spec.containers.env")
    _replace(container, "env", [each for each in env if each.get("name") != _RESTORE_VARIABLE])


def _replace(table: Object, key: str, kept: list[Object]) -> None:
    """What is left of a list; nothing where nothing is."""
    if kept:
        table[key] = kept
    else:
        table.pop(key, None)


def _is_named(entry: Mapping[str, Any], names: AbstractSet[str]) -> bool:
    """Whether it has one of these names; what is no text is none, and the cluster's to refuse."""
    name = entry.get("name")
    return isinstance(name, str) and name in names


def _holds_token(volume: Mapping[str, Any]) -> bool:
    """Whether it is the one that every pod gets, and this one will get anew."""
    name = volume.get("name")
    if not isinstance(name, str):
        return False
    projected = name.startswith(_TOKEN_VOLUME) and "projected" in volume
    return projected or (_TOKEN_SECRET.fullmatch(name) is not None and "secret" in volume)


def _is_default(toleration: Mapping[str, Any]) -> bool:
    return (
        toleration.get("key") in _DEFAULT_TOLERATED
        and toleration.get("effect") == "NoExecute"
        and toleration.get("tolerationSeconds") == _DEFAULT_SECONDS
    )


def _annotations(metadata: Mapping[str, Any], wanted: Restoration) -> dict[str, str]:
    given = texts(metadata.get("annotations"), "pod_metadata_spec.annotations")
    kept = {key: each for key, each in given.items() if not key.startswith(_ANNOTATIONS_GONE)}
    kept |= {RESTORE: wanted.path, RESTORE_ACTION: wanted.action_id}
    if wanted.condition is not None:
        kept[RESTORE_NODE] = str(wanted.condition)
    return kept


def _condition(metadata: Mapping[str, Any]) -> NodeCondition | None:
    """What an earlier restore has added to the affinity."""
    annotations = texts(metadata.get("annotations"), "pod_metadata_spec.annotations")
    return NodeCondition.parsed(annotations.get(RESTORE_NODE, ""))


def _mapping(value: object, field: str) -> Object:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise InvalidArgument(field, "must be an object, as `kubectl get pod -o json` shows it")
    return value
