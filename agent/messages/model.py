"""Actions, their states, events and outcomes. Sizes in bytes, times in seconds."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from agent.errors import AgentError
from agent.targets import Kind, PodRef, ProcessTarget, RuncTarget


class State(StrEnum):
    """Of an action, in the order in which it goes through them."""

    INITIALIZED = "initialized"
    PROCESSING = "processing"
    CHECKPOINT_CREATED = "checkpoint_created"
    READY = "ready"
    ERROR = "error"

    @property
    def is_terminal(self) -> bool:
        """Whether nothing comes after it."""
        return self in (State.READY, State.ERROR)


class ActionType(StrEnum):
    """As the Actions API calls them."""

    CHECKPOINT = "checkpoint_pod"
    RESTORE = "restore_pod"


@dataclass(frozen=True, slots=True)
class CheckpointOverrides:
    """What differs from the node's configuration; None does not."""

    asynchronous: bool | None = None
    compression: str | None = None
    criu_opts: str | None = None
    directory: str | None = None
    streams: int | None = None


@dataclass(frozen=True, slots=True)
class CheckpointSpec:
    """A checkpoint that somebody asks for. ``reason`` is ``manual`` or ``heartbeat``."""

    target: PodRef | RuncTarget | ProcessTarget
    kind: Kind = Kind.SIMPLE
    reason: str = "manual"
    name: str | None = None
    overrides: CheckpointOverrides = CheckpointOverrides()


@dataclass(frozen=True, slots=True)
class RestoreOverrides:
    """See RestoreOverrides in proto/."""

    criu_opts: str | None = None
    pod_name: str | None = None


@dataclass(frozen=True, slots=True)
class RestoreSpec:
    """A restore that somebody asks for.

    ``reason`` is ``manual``, ``nodeTermination`` or ``nodeUnschedulable``; ``member`` the container
    to restore, None for all. ``pod`` is a pod that Kubernetes makes: others restore its containers.
    """

    path: str
    reason: str = "manual"
    member: str | None = None
    container_id: str | None = None
    bundle: str | None = None
    runc_root: str | None = None
    overrides: RestoreOverrides = RestoreOverrides()
    pod: PodRef | None = None


@dataclass(frozen=True, slots=True)
class ActionRequest:
    """What is to be done under this id; the same id is the same action, however often it comes."""

    action_id: str
    spec: CheckpointSpec | RestoreSpec

    @property
    def type(self) -> ActionType:
        """Which of the two."""
        checkpoint = isinstance(self.spec, CheckpointSpec)
        return ActionType.CHECKPOINT if checkpoint else ActionType.RESTORE


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an action is. ``bytes_total`` is 0 when unknown."""

    phase: str
    bytes_raw: int = 0
    bytes_stored: int = 0
    bytes_total: int = 0
    bytes_per_second: float = 0.0


@dataclass(frozen=True, slots=True)
class CheckpointOutcome:
    """What a checkpoint came to; at ``checkpoint_created`` as far as it is known."""

    checkpoint_id: str
    path: str
    name: str | None
    frozen_seconds: float
    wall_seconds: float
    phases: Mapping[str, float]
    bytes_raw: int
    bytes_stored: int = 0
    chunks: int = 0
    streams: int = 0
    codec: str = ""
    streamed: bool = True
    fallback_reason: str | None = None
    containers: tuple[str, ...] = ()
    platform: str = ""
    cuda_seconds: float = 0.0
    gpus: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RestoredMember:
    """One container or process tree that runs again."""

    name: str
    container_id: str
    pid: int


@dataclass(frozen=True, slots=True)
class RestoreOutcome:
    """What a restore came to; ``not_restored`` are layers and volumes that nobody unpacked."""

    path: str
    wall_seconds: float
    phases: Mapping[str, float]
    bytes_raw: int
    bytes_stored: int
    members: tuple[RestoredMember, ...] = ()
    not_restored: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Failure:
    """What failed, what state things are in, and what to try: an AgentError that can travel."""

    code: str
    message: str
    state: str = ""
    hint: str = ""
    field: str = ""
    log_tail: str = ""
    details: Mapping[str, str | float | bool] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, error: AgentError) -> Failure:
        """An error's fields; ``argument`` is the field of the request that was at fault."""
        details: dict[str, str | float | bool] = {
            name: value if isinstance(value, str | int | float) else str(value)
            for name, value in error.fields().items()
            if name != "log_tail" and value is not None
        }
        return cls(
            code=error.code,
            message=str(error),
            state=error.state,
            hint=error.hint,
            field=str(details.get("argument", "")),
            log_tail=str(error.fields().get("log_tail") or ""),
            details=details,
        )


@dataclass(frozen=True, slots=True)
class Event:
    """An action has changed its state, or got on. ``sequence`` counts up for each action, and
    ``reason`` is its request's.
    """

    action_id: str
    sequence: int
    state: State
    type: ActionType
    time: datetime
    pod: PodRef | None = None
    progress: Progress | None = None
    checkpoint: CheckpointOutcome | None = None
    restore: RestoreOutcome | None = None
    failure: Failure | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Action:
    """One action as the node knows it."""

    request: ActionRequest
    accepted: datetime
    event: Event

    @property
    def action_id(self) -> str:
        """Its id."""
        return self.request.action_id

    @property
    def state(self) -> State:
        """Where it is."""
        return self.event.state
