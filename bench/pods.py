"""Pods without a container engine: containers of plain runc with what an engine notes on them."""

from __future__ import annotations

import uuid
from collections.abc import Mapping

from bench.bundle import COUNTER, Bundle, Workload
from bench.runc import Container, RuncRoot

_CRI = "io.kubernetes.cri."


def run_container(
    runc: RuncRoot,
    pod: str,
    name: str = "app",
    *workloads: Workload,
    uid: str = "",
    annotations: Mapping[str, str] | None = None,
) -> Container:
    """Start a container of a pod in namespace ``default``.

    Args:
        workloads: the counter when none is given.
        uid: the pod's, made of its name when not given.
        annotations: what the pod's author has written.
    """
    chosen = workloads or (COUNTER,)
    return runc.start(build_container(runc, pod, name, *chosen, uid=uid, annotations=annotations))


def build_container(
    runc: RuncRoot,
    pod: str,
    name: str,
    *workloads: Workload,
    uid: str = "",
    annotations: Mapping[str, str] | None = None,
) -> Bundle:
    """The bundle of such a container."""
    uid = uid or uid_of(pod)
    noted = {
        f"{_CRI}container-type": "container",
        f"{_CRI}sandbox-id": f"sandbox-{uid}",
        f"{_CRI}sandbox-name": pod,
        f"{_CRI}sandbox-namespace": "default",
        f"{_CRI}sandbox-uid": uid,
        f"{_CRI}container-name": name,
        f"{_CRI}image-name": "busybox",
    }
    return runc.build(*workloads, annotations={**noted, **(annotations or {})})


def uid_of(pod: str) -> str:
    """The UID of a pod that is known by its name."""
    return str(uuid.uuid5(uuid.NAMESPACE_DNS, pod))
