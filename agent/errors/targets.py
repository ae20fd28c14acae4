"""What is to be checkpointed or restored: not there, not fit for it, or somebody else's now."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from agent.errors.base import AgentError


@dataclass(eq=False)
class TargetNotFound(AgentError):
    """The container or process to work on does not exist."""

    exit_code: ClassVar[int] = 4
    code: ClassVar[str] = "target_not_found"
    template: ClassVar[str] = "no {kind} {target!r}{where}"
    state: ClassVar[str] = "nothing was touched"
    hint: ClassVar[str] = "`runc --root DIR list` shows containers; pass the right --runc-root"

    kind: str
    target: str
    where: str = ""


@dataclass(eq=False)
class TargetNotCheckpointable(AgentError):
    """The container or process exists, but not in a state that can be checkpointed."""

    exit_code: ClassVar[int] = 5
    code: ClassVar[str] = "target_not_checkpointable"
    template: ClassVar[str] = "{target} cannot be checkpointed: {reason}"
    state: ClassVar[str] = "nothing was touched"

    target: str
    reason: str


@dataclass(eq=False)
class TargetBusy(AgentError):
    """Another checkpoint or restore of the same target is under way."""

    exit_code: ClassVar[int] = 6
    code: ClassVar[str] = "target_busy"
    template: ClassVar[str] = "{target} is being checkpointed or restored by process {owner_pid}"
    state: ClassVar[str] = "that operation goes on undisturbed"
    hint: ClassVar[str] = "wait for it to end, then try again"

    target: str
    owner_pid: int


@dataclass(eq=False)
class TargetFrozen(TargetBusy):
    """It is frozen on somebody's request already."""

    template: ClassVar[str] = "{target} is kept frozen by another call to process {owner_pid}"
    state: ClassVar[str] = "it stays frozen until that call's thaw or time limit"
    hint: ClassVar[str] = "thaw that one, or wait for its limit"


@dataclass(eq=False)
class PodNotFound(AgentError):
    """No pod on this machine is the one asked for."""

    exit_code: ClassVar[int] = 4
    code: ClassVar[str] = "pod_not_found"
    template: ClassVar[str] = "no {pod} on this node"
    state: ClassVar[str] = "nothing was touched"
    hint: ClassVar[str] = "check UID, namespace and name, and that the pod runs on this node"

    pod: str


@dataclass(eq=False)
class PodAmbiguous(AgentError):
    """Several pods are what was asked for, and the agent does not guess."""

    exit_code: ClassVar[int] = 4
    code: ClassVar[str] = "pod_ambiguous"
    template: ClassVar[str] = "{pod} could be any of {candidates}"
    state: ClassVar[str] = "nothing was touched"
    hint: ClassVar[str] = "name it by its UID"

    pod: str
    candidates: str


@dataclass(eq=False)
class BundleInvalid(AgentError):
    """An OCI bundle that is missing, unreadable or without a usable config.json."""

    exit_code: ClassVar[int] = 13
    code: ClassVar[str] = "bundle_invalid"
    template: ClassVar[str] = "bundle {bundle}: {reason}"
    hint: ClassVar[str] = "pass --bundle DIR with a config.json and the root filesystem it names"

    bundle: str
    reason: str
