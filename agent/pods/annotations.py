"""What containerd and CRI-O write onto a container to say which pod it belongs to.

runc keeps a spec's annotations in its own state, so no daemon has to be asked and none has to run.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from agent.targets import PodRef

Runtime = Literal["containerd", "cri-o"]

# Of what a pod's author may say to the agent.
PREFIX = "checkpoint-agent/"

_CONTAINERD = "io.kubernetes.cri."
_CRIO = "io.kubernetes.cri-o."

# What each writes onto every container. An engine writes all of its own keys anew, and may pass on
# what a pod's author has written of the other's.
_CONTAINERD_TYPE = f"{_CONTAINERD}container-type"
CRIO_TYPE = f"{_CRIO}ContainerType"

# What Kubernetes allows in names and UIDs, and the underscores that crictl lets through. What is
# anything else was not written by a kubelet, and would end in log lines and subjects.
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")

# Both cgroup drivers: `.../pod<uid>/<id>` and `...-pod<uid with _ for ->.slice/...`.
_POD_CGROUP = re.compile(
    r"[/-]pod([0-9a-f]{8}(?:[-_]?[0-9a-f]{4}){3}[-_]?[0-9a-f]{12})(?:\.slice)?/"
)


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose a container is; ``container`` is "" for the sandbox (the `pause` container)."""

    runtime: Runtime
    pod: PodRef
    sandbox_id: str
    container: str
    image: str


def identify(annotations: Mapping[str, str], cgroups: Sequence[str]) -> Identity | None:
    """Whose a container is, None when it is no pod's or says so in a form nobody writes.

    One of both engines was written by no engine: its author wants to pass for somebody else.

    Args:
        cgroups: its cgroups' paths. They name the pod's UID where containerd, before 1.6.1, does
            not.
    """
    if CRIO_TYPE in annotations:
        found = None if _CONTAINERD_TYPE in annotations else _of_crio(annotations)
    else:
        found = _of_containerd(annotations, cgroups)
    return found if found and _is_well_formed(found) else None


def own(annotations: Mapping[str, str]) -> dict[str, str]:
    """Those that are meant for the agent, with their whole names. Their values may be anything."""
    return {key: value for key, value in annotations.items() if key.startswith(PREFIX)}


def instance(runtime: Runtime, bundle: Path) -> Path:
    """The directory that tells one containerd or CRI-O from another one on the same machine."""
    # .../io.containerd.runtime.v2.task/k8s.io/ID, and .../overlay-containers/ID/userdata
    return bundle.parent if runtime == "containerd" else bundle.parent.parent


def _of_containerd(annotations: Mapping[str, str], cgroups: Sequence[str]) -> Identity | None:
    def value(key: str) -> str:
        return annotations.get(_CONTAINERD + key, "")

    kind, name = value("container-type"), value("container-name")
    if kind not in ("container", "sandbox") or (kind == "container" and not name):
        return None
    return Identity(
        runtime="containerd",
        pod=PodRef(
            value("sandbox-uid") or _uid_of(cgroups),
            value("sandbox-namespace"),
            value("sandbox-name"),
        ),
        sandbox_id=value("sandbox-id"),
        container=name if kind == "container" else "",
        image=value("image-name"),
    )


def _of_crio(annotations: Mapping[str, str]) -> Identity | None:
    kind = annotations[CRIO_TYPE]
    labels = _crio_labels(annotations)
    name = labels.get("io.kubernetes.container.name", "")
    if kind not in ("container", "sandbox") or (kind == "container" and not name):
        return None
    return Identity(
        runtime="cri-o",
        pod=PodRef(
            labels.get("io.kubernetes.pod.uid", ""),
            labels.get("io.kubernetes.pod.namespace", ""),
            labels.get("io.kubernetes.pod.name", ""),
        ),
        sandbox_id=annotations.get(f"{_CRIO}SandboxID", ""),
        # The sandbox's own name is POD.
        container=name if kind == "container" else "",
        image=annotations.get(f"{_CRIO}ImageName", ""),
    )


def _crio_labels(annotations: Mapping[str, str]) -> dict[str, str]:
    """A kubelet's labels: in an annotation as a JSON object, or as annotations of their own.

    CRI-O also copies what a pod's author wrote as annotations, so the object counts for more: an
    author cannot pass a pod off as another one.
    """
    try:
        labels = json.loads(annotations.get(f"{_CRIO}Labels", "{}"))
    except (ValueError, RecursionError):
        labels = {}
    packed = labels if isinstance(labels, dict) else {}
    return dict(annotations) | {key: str(value) for key, value in packed.items()}


def _uid_of(cgroups: Sequence[str]) -> str:
    found = (_POD_CGROUP.search(path) for path in cgroups)
    return next((match[1].replace("_", "-") for match in found if match), "")


def _is_well_formed(found: Identity) -> bool:
    words = [found.pod.uid, found.pod.namespace, found.pod.name, found.sandbox_id]
    if found.container:
        words.append(found.container)
    return all(_NAME.fullmatch(word) for word in words) and found.image.isprintable()
