"""A checkpoint or restore that was begun, and did not come to its end."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from agent.errors.base import AgentError


@dataclass(eq=False)
class DumpFailed(AgentError):
    """runc or CRIU could not dump; the target runs as before."""

    exit_code: ClassVar[int] = 7
    code: ClassVar[str] = "dump_failed"
    template: ClassVar[str] = "checkpoint of {target} failed: {reason}"
    state: ClassVar[str] = "it runs as before; nothing was stored"

    target: str
    reason: str
    log_tail: str = ""


@dataclass(eq=False)
class FrozenTooLong(AgentError):
    """A checkpoint was given up, because what was to be checkpointed had not run for too long."""

    exit_code: ClassVar[int] = 7
    code: ClassVar[str] = "frozen_too_long"
    template: ClassVar[str] = (
        "checkpoint of {target} was given up: it was frozen for {seconds:g} s, and not all of it"
        " could be copied out or stored by then"
    )
    state: ClassVar[str] = "it runs as before; nothing was stored"
    hint: ClassVar[str] = (
        "see whether the store answers and how fast it is; memory for staging ([checkpoint]"
        " staging_bytes) makes freezes shorter, [checkpoint] frozen_limit_seconds or --frozen-limit"
        " allows longer ones"
    )

    target: str
    seconds: float


@dataclass(eq=False)
class TargetLost(AgentError):
    """The dump failed and the target is not running afterwards."""

    exit_code: ClassVar[int] = 7
    code: ClassVar[str] = "target_lost"
    template: ClassVar[str] = "checkpoint of {target} failed, and it is {status} now: {reason}"
    state: ClassVar[str] = "nothing was stored"
    hint: ClassVar[str] = "start it again, or restore its latest checkpoint"

    target: str
    status: str
    reason: str
    log_tail: str = ""


@dataclass(eq=False)
class GpuStuck(AgentError):
    """A process was taken off its GPU for a checkpoint, and the driver does not bring it back."""

    exit_code: ClassVar[int] = 7
    code: ClassVar[str] = "gpu_stuck"
    template: ClassVar[str] = "{target} is not back on its GPU: {reason}"
    state: ClassVar[str] = (
        "the process waits for its GPU, with all it had there in its memory; if the checkpoint was"
        " complete, it is stored"
    )
    hint: ClassVar[str] = (
        "make room on the GPU; the daemon tries again every hour, and `checkpoint-agent thaw --all`"
        " at once"
    )

    target: str
    reason: str
    path: str | None = None


@dataclass(eq=False)
class NetworkStuck(AgentError):
    """CRIU lets nothing pass in a network while it works there, and that may not be taken back."""

    exit_code: ClassVar[int] = 7
    code: ClassVar[str] = "network_stuck"
    template: ClassVar[str] = "the network {network} may be locked still: {reason}{after}"
    state: ClassVar[str] = "whoever is in that network may be cut off from it; all else was undone"
    hint: ClassVar[str] = (
        "see what keeps iptables from working; the daemon tries again every hour, and"
        " `checkpoint-agent thaw --all` at once"
    )

    network: str
    reason: str
    after: str = ""

    def following(self, error: BaseException) -> NetworkStuck:
        """The same, and what had failed before it."""
        return replace(self, after=f"; before that: {str(error) or 'it was given up'}")


@dataclass(eq=False)
class RestoreFailed(AgentError):
    """runc or CRIU could not restore; nothing of the target was left behind."""

    exit_code: ClassVar[int] = 8
    code: ClassVar[str] = "restore_failed"
    template: ClassVar[str] = "restore of {target} failed: {reason}"
    state: ClassVar[str] = "nothing is running from it; the checkpoint is unchanged"

    target: str
    reason: str
    log_tail: str = ""


@dataclass(eq=False)
class RestoreNotUndone(RestoreFailed):
    """The same, but something may have been left behind."""

    template: ClassVar[str] = "restore of {target} failed: {reason}; not undone: {left}"
    state: ClassVar[str] = "something of it may be there or run; the checkpoint is unchanged"
    hint: ClassVar[str] = (
        "see what keeps that from being undone; the daemon tries again every hour, and"
        " `checkpoint-agent thaw --all` at once"
    )

    left: str = ""

    @classmethod
    def after(
        cls, error: BaseException, left: AgentError | OSError, target: str
    ) -> RestoreNotUndone:
        """Why the restore of ``target``, or of one member of it, failed; and why undoing it did."""
        if isinstance(error, RestoreFailed):
            before = f"{error.left}; " if isinstance(error, RestoreNotUndone) else ""
            return cls(error.target, error.reason, error.log_tail, f"{before}{left}")
        return cls(target, str(error) or "it was given up", left=str(left))


@dataclass(eq=False)
class StartedCold(AgentError):
    """A pod was to come back from a checkpoint, and was started from its images instead."""

    exit_code: ClassVar[int] = 8
    code: ClassVar[str] = "started_cold"
    template: ClassVar[str] = "{target} did not come back from its checkpoint: {reason}"
    state: ClassVar[str] = "it was started from its images; the checkpoint is unchanged"
    hint: ClassVar[str] = "when the reason is gone, make the pod again: it is restored then"

    target: str
    reason: str
    log_tail: str = ""
