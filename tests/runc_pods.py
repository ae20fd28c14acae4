"""Pods without a container engine: containers of plain runc with what an engine notes on them."""

from __future__ import annotations

import uuid

from bench.bundle import COUNTER, Workload
from bench.runc import Container, RuncRoot
from tests.nodes import Json

_CRI = "io.kubernetes.cri."


def run_container(
    runc: RuncRoot, pod: str, name: str = "app", *workloads: Workload, uid: str = ""
) -> Container:
    """Start a container of a pod in namespace ``default``.

    Args:
        workloads: the counter when none is given.
        uid: the pod's, made of its name when not given.
    """
    uid = uid or uid_of(pod)
    annotations = {
        f"{_CRI}container-type": "container",
        f"{_CRI}sandbox-id": f"sandbox-{uid}",
        f"{_CRI}sandbox-name": pod,
        f"{_CRI}sandbox-namespace": "default",
        f"{_CRI}sandbox-uid": uid,
        f"{_CRI}container-name": name,
        f"{_CRI}image-name": "busybox",
    }
    return runc.start(runc.build(*(workloads or (COUNTER,)), annotations=annotations))


def uid_of(pod: str) -> str:
    """The UID of a pod that is known by its name."""
    return str(uuid.uuid5(uuid.NAMESPACE_DNS, pod))


def named(pod: str) -> Json:
    """A pod as a request names it."""
    return {"pod": {"namespace": "default", "name": pod}}
