"""Refusals of a pod that people can do something about, each with what that is.

They share the code `cluster_refused`: programs tell them apart by ``reason`` and ``status``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from agent.errors import ClusterRefused


@dataclass(eq=False)
class PodExists(ClusterRefused):
    """Another pod has the name."""

    state: ClassVar[str] = "that pod was left as it is"
    hint: ClassVar[str] = "delete that pod and ask again, or give overrides.pod_name"


@dataclass(eq=False)
class QuotaExceeded(ClusterRefused):
    """The namespace may not have so much."""

    hint: ClassVar[str] = "delete what is not needed in the namespace, or raise its quota"


@dataclass(eq=False)
class SpecInvalid(ClusterRefused):
    """The kept spec does not hold up in this cluster."""

    hint: ClassVar[str] = "upload a pod_spec without what the message names, and ask again"


@dataclass(eq=False)
class NoRights(ClusterRefused):
    """RBAC, or no valid credentials."""

    hint: ClassVar[str] = (
        "the API's service account needs the rules of docs/kubernetes.md; "
        "`kubectl auth can-i create pods --as ...` tells whether it has them"
    )


@dataclass(eq=False)
class NamespaceMissing(ClusterRefused):
    """The namespace is gone, or about to go."""

    hint: ClassVar[str] = "create the namespace again, with what the pod needs in it"


@dataclass(eq=False)
class AdmissionDenied(ClusterRefused):
    """A webhook or a policy says no."""

    hint: ClassVar[str] = (
        "the message is the policy's own; the pod would run with RuntimeClass checkpoint-runc"
    )


def explained(error: ClusterRefused) -> ClusterRefused:
    """The same with a better hint, where there is one."""
    kind = _kind(error.status, error.reason, error.message)
    if kind is None:
        return error
    return kind(error.operation, error.status, error.reason, error.message)


def _kind(status: int, reason: str, message: str) -> type[ClusterRefused] | None:
    """By the words of Kubernetes' own admission, which have no codes."""
    if status == 409:
        return PodExists if reason == "AlreadyExists" else None
    if status == 422 or (status == 400 and "cannot be handled as a Pod" in message):
        return SpecInvalid
    if status == 404 or "because it is being terminated" in message:
        return NamespaceMissing
    if status == 403 and "exceeded quota" in message:
        return QuotaExceeded
    if status == 401 or (status == 403 and " cannot " in message and "User " in message):
        return NoRights
    if status in (400, 403):
        return AdmissionDenied
    return None
