"""Bodies of requests and answers, as the contract (proto/actions-openapi.json) has them.

What the contract leaves free is left free: fields that it does not name are ignored. Types are
strict: a number is no text.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, Strict

Int32 = Annotated[int, Field(json_schema_extra={"format": "int32"})]
Int64 = Annotated[int, Field(json_schema_extra={"format": "int64"})]
Uuid = Annotated[str, Field(json_schema_extra={"format": "uuid"})]
Time = Annotated[str, Field(json_schema_extra={"format": "date-time"})]


def _without_defaults(schema: dict[str, Any]) -> None:
    """The contract has none: what is left out is simply not there."""
    for described in schema.get("properties", {}).values():
        described.pop("default", None)


class Body(BaseModel):
    """Root of what is received."""

    model_config = ConfigDict(strict=True, json_schema_extra=_without_defaults)


class CheckpointKind(StrEnum):
    """What of a container is taken."""

    SIMPLE = "simple"
    ROOTFS = "rootfs"
    ROOTFSONLY = "rootfsonly"


class CheckpointReason(StrEnum):
    """Why a checkpoint is asked for."""

    HEARTBEAT = "heartbeat"
    MANUAL = "manual"


class RestoreReason(StrEnum):
    """Why a restore is asked for."""

    NODE_TERMINATION = "nodeTermination"
    NODE_UNSCHEDULABLE = "nodeUnschedulable"
    MANUAL = "manual"


class CheckpointOperationStatus(StrEnum):
    """Where an action is."""

    INITIALIZED = "initialized"
    PROCESSING = "processing"
    CHECKPOINT_CREATED = "checkpoint_created"
    READY = "ready"
    ERROR = "error"
    NOT_FOUND = "not_found"


class CheckpointOverrides(Body):
    """What differs from the node's configuration; `streams` 0 and `null` do not."""

    # None is what was left out: a null of the client's is no boolean, and refused.
    asynchronous: Annotated[bool, Field(default=None)]
    compression: str | None = None
    criu_opts: str | None = None
    directory: str | None = None
    streams: Int32 = 0


class CheckpointPod(Body):
    """A pod to checkpoint: by `pod_id`, its UID, or by `pod_name`, mostly with `namespace`."""

    action_id: Annotated[str | None, Field(json_schema_extra={"readOnly": True})] = None
    cluster_id: str | None = None
    kind: Annotated[CheckpointKind, Strict(False)] = CheckpointKind.SIMPLE
    namespace: str | None = None
    overrides: CheckpointOverrides | None = None
    pod_id: str | None = None
    pod_name: str | None = None
    reason: Annotated[CheckpointReason, Strict(False)] = CheckpointReason.MANUAL


class RestoreOverrides(Body):
    """What differs from what was given at the checkpoint."""

    criu_opts: str | None = None
    pod_name: str | None = None


class RestorePod(Body):
    """A `ready` checkpoint to restore, by its action's id."""

    action_id: str
    cluster_id: str = ""
    overrides: RestoreOverrides | None = None
    reason: Annotated[RestoreReason, Strict(False)]


class CheckpointStatusWithPodSpec(Body):
    """What belongs to an action and only the cluster knows."""

    action_id: str
    persistent_volume_claim: Any = None
    pod_id: str | None = None
    pod_metadata_spec: Any = None
    pod_spec: Any = None
    status: str


class StatusResponse(BaseModel):
    """Where an action is; with `error`, why."""

    details: str | None = None
    status: CheckpointOperationStatus


class Action(BaseModel):
    """One action. `total_duration` is in nanoseconds, `total_io` in bytes stored."""

    action_id: Uuid
    action_timestamp: Time | None = None
    checkpoint_completed_timestamp: Time | None = None
    checkpoint_id: Uuid
    details: Any
    gpu: str
    node_name: str | None = None
    platform: str
    reason: str | None = None
    status: str
    total_duration: Int64 | None = None
    total_io: Int64 | None = None
    type: str


class Step(BaseModel):
    """An action came into a state."""

    sequence: int
    state: str
    time: str


class ActionDetail(Action):
    """All that is known of one action. `phases` are in order, in seconds."""

    phases: dict[str, float]
    timeline: list[Step]
    containers: list[str]
    outcome: dict[str, Any] | None
    pod_spec: Any = None
    pod_metadata_spec: Any = None
    persistent_volume_claim: Any = None


class ApiError(BaseModel):
    """Standard error response for API endpoints."""

    code: Annotated[str | None, Field(description="HTTP status code")] = None
    details: Annotated[Any, Field(description="Optional additional error details")] = None
    message: Annotated[str, Field(description="Error message describing what went wrong")]


class Credentials(Body):
    """A token, to be kept as a cookie by a browser."""

    token: str


class Session(BaseModel):
    """Whose token it is, and what it may."""

    name: str
    scopes: list[str]
