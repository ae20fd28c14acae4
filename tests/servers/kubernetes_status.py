"""What Kubernetes' API server answers when it says no, in its own words and codes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Object = dict[str, Any]

USER = "system:serviceaccount:checkpoint-agent:api"


@dataclass(eq=False)
class Refusal(Exception):
    """An answer that is no success. ``retry_after`` goes into the header of that name."""

    code: int
    reason: str
    message: str
    details: Object = field(default_factory=dict)
    retry_after: int | None = None

    def body(self) -> Object:
        """A Status object."""
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "details": self.details,
            "code": self.code,
        }


def unauthorized() -> Refusal:
    return Refusal(401, "Unauthorized", "Unauthorized")


def not_found(resource: str, name: str) -> Refusal:
    details = {"name": name, "kind": resource}
    return Refusal(404, "NotFound", f'{resource} "{name}" not found', details)


def already_exists(resource: str, name: str) -> Refusal:
    details = {"name": name, "kind": resource}
    return Refusal(409, "AlreadyExists", f'{resource} "{name}" already exists', details)


def conflict(resource: str, name: str, why: str) -> Refusal:
    text = f'Operation cannot be fulfilled on {resource} "{name}": {why}'
    return Refusal(409, "Conflict", text, {"name": name, "kind": resource})


def forbidden(verb: str, resource: str, namespace: str) -> Refusal:
    """What RBAC does not allow."""
    where = f' in the namespace "{namespace}"' if namespace else " at the cluster scope"
    text = (
        f'{resource} is forbidden: User "{USER}" cannot {verb} resource "{resource}" '
        f'in API group ""{where}'
    )
    return Refusal(403, "Forbidden", text, {"kind": resource})


def rejected(resource: str, name: str, why: str) -> Refusal:
    """What an admission plugin of Kubernetes' own does not allow."""
    text = f'{resource} "{name}" is forbidden: {why}'
    return Refusal(403, "Forbidden", text, {"name": name, "kind": resource})


def denied(webhook: str, why: str) -> Refusal:
    """What somebody's webhook does not allow."""
    text = f'admission webhook "{webhook}" denied the request: {why}'
    return Refusal(403, "", text)


def invalid(name: str, *causes: tuple[str, str]) -> Refusal:
    """What does not validate: fields, and what is wrong with them."""
    told = ", ".join(f"{where}: {why}" for where, why in causes)
    text = f'Pod "{name}" is invalid: ' + (told if len(causes) == 1 else f"[{told}]")
    listed = [{"reason": "FieldValueInvalid", "message": why, "field": at} for at, why in causes]
    return Refusal(422, "Invalid", text, {"name": name, "kind": "Pod", "causes": listed})


def gone(version: int, oldest: int) -> Refusal:
    return Refusal(410, "Expired", f"too old resource version: {version} ({oldest})")
