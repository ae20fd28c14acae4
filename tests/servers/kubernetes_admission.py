"""What an API server does to a pod before it stores it: the checks and additions that matter here.

As Kubernetes 1.30 has them: it was the behaviour of its admission plugins that this was written
after, down to their words.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any

from tests.servers.kubernetes_status import Object, Refusal, invalid, rejected

TOKEN_MOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
TOLERATED = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")


def admit(pod: Object, runtime_classes: set[str]) -> None:
    """Complete a pod that is about to be stored. Raises Refusal."""
    name, spec = pod["metadata"]["name"], pod["spec"]
    for refusal in _against(name, spec, runtime_classes):
        raise refusal
    spec.setdefault("serviceAccountName", "default")
    spec["serviceAccount"] = spec["serviceAccountName"]
    spec["priority"], spec["preemptionPolicy"] = 0, "PreemptLowerPriority"
    spec.setdefault("restartPolicy", "Always")
    spec.setdefault("schedulerName", "default-scheduler")
    tolerations = spec.setdefault("tolerations", [])
    for key in TOLERATED:
        if not any(each.get("key") == key for each in tolerations):
            tolerations.append(
                {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}
            )
    _give_token(spec)
    causes = list(_invalid(spec))
    if causes:
        raise invalid(name, *causes)
    pod["status"] = {"phase": "Pending", "qosClass": "BestEffort"}


def _against(name: str, spec: Object, runtime_classes: set[str]) -> Iterator[Refusal]:
    wanted = spec.get("runtimeClassName")
    if wanted is not None and wanted not in runtime_classes:
        yield rejected("pods", name, f'pod rejected: RuntimeClass "{wanted}" not found')
    if spec.get("overhead"):
        yield rejected(
            "pods",
            name,
            "pod rejected: Pod Overhead set without corresponding RuntimeClass defined",
        )
    if spec.get("priority"):
        yield rejected(
            "pods",
            name,
            f"the integer value of priority ({spec['priority']}) must not be provided in pod spec; "
            "priority admission controller computed 0 from the given PriorityClass name",
        )


def _give_token(spec: Object) -> None:
    volume = f"kube-api-access-{secrets.token_hex(3)[:5]}"
    needed = False
    for container in containers_of(spec):
        mounts = container.setdefault("volumeMounts", [])
        if not any(each.get("mountPath") == TOKEN_MOUNT for each in mounts):
            mounts.append({"name": volume, "readOnly": True, "mountPath": TOKEN_MOUNT})
            needed = True
    if needed:
        sources: list[Any] = [{"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}}]
        spec.setdefault("volumes", []).append({"name": volume, "projected": {"sources": sources}})


def containers_of(spec: Object) -> list[Object]:
    """All of a pod that mount volumes."""
    return [*spec.get("initContainers", []), *spec.get("containers", [])]


def _invalid(spec: Object) -> Iterator[tuple[str, str]]:
    if not spec.get("containers"):
        yield "spec.containers", "Required value"
    if spec.get("ephemeralContainers"):
        yield "spec.ephemeralContainers", "Forbidden: cannot be set on create"
    volumes = {each.get("name") for each in spec.get("volumes", [])}
    for at, container in enumerate(spec.get("containers", [])):
        for field in ("name", "image"):
            if not container.get(field):
                yield f"spec.containers[{at}].{field}", "Required value"
        for number, mount in enumerate(container.get("volumeMounts", [])):
            if mount.get("name") not in volumes:
                where = f"spec.containers[{at}].volumeMounts[{number}].name"
                yield where, f'Not found: "{mount.get("name")}"'
