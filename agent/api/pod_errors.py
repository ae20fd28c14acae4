"""How a restore ends whose pod no node came to restore."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from agent.errors import AgentError


@dataclass(eq=False)
class PodGone(AgentError):
    """Somebody has deleted the pod."""

    exit_code: ClassVar[int] = 18
    code: ClassVar[str] = "pod_gone"
    template: ClassVar[str] = "pod {pod} was deleted before a node restored it"
    state: ClassVar[str] = "nothing runs from it; the checkpoint is unchanged"
    hint: ClassVar[str] = "ask for it again"

    pod: str


@dataclass(eq=False)
class PodNotStarted(AgentError):
    """It waited for too long."""

    exit_code: ClassVar[int] = 18
    code: ClassVar[str] = "pod_not_started"
    template: ClassVar[str] = "pod {pod} was not restored within {seconds:.0f} s: {reason}"
    state: ClassVar[str] = "the pod is deleted, so that it does not start later unasked"
    hint: ClassVar[str] = "see to the reason, then ask for it again; [cluster] pending_seconds"

    pod: str
    seconds: float
    reason: str


@dataclass(eq=False)
class PodNotCreated(PodNotStarted):
    """Likewise, and there never was one."""

    state: ClassVar[str] = "no pod was created"


@dataclass(eq=False)
class PodLeft(PodNotStarted):
    """Likewise, but it has run or cannot be deleted."""

    state: ClassVar[str] = "the pod was left: it runs, or has run, or cannot be deleted"
    hint: ClassVar[str] = "`kubectl describe pod` and the agent's log on its node say more"


@dataclass(eq=False)
class PodBug(AgentError):
    """What nobody expected: the others' restores go on all the same."""

    code: ClassVar[str] = "internal"
    template: ClassVar[str] = "unexpected error; the API's log says more"
    state: ClassVar[str] = "unknown: a pod may have been created"


@dataclass(eq=False)
class SourceGone(AgentError):
    """What the pod would have been made of was removed."""

    exit_code: ClassVar[int] = 18
    code: ClassVar[str] = "source_gone"
    template: ClassVar[str] = "nothing is kept any more of the pod of action {action_id!r}"
    state: ClassVar[str] = "no pod was created"
    hint: ClassVar[str] = "upload its pod_spec, then ask for it again"

    action_id: str
