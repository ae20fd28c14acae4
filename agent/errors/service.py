"""The daemon, its actions, and what it talks to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from agent.errors.base import AgentError


@dataclass(eq=False)
class BrokerFailed(AgentError):
    """The broker is away, refuses us, or has streams that are not ours. The agent keeps trying."""

    exit_code: ClassVar[int] = 16
    code: ClassVar[str] = "broker_failed"
    template: ClassVar[str] = "{reason}"
    state: ClassVar[str] = "actions go on; their events wait in the journal until it is there"

    reason: str


@dataclass(eq=False)
class RedeliveredTooOften(AgentError):
    """The broker gave an action to this node again and again, and never heard of its end."""

    exit_code: ClassVar[int] = 18
    code: ClassVar[str] = "redelivered_too_often"
    template: ClassVar[str] = "given up: delivered {deliveries} times and never answered"
    state: ClassVar[str] = "nothing was touched by the last delivery"
    hint: ClassVar[str] = "the agent's log around the earlier deliveries says what ended it"

    deliveries: int


@dataclass(eq=False)
class AlreadyRunning(AgentError):
    """A daemon works in this state directory already; two would undo each other's work."""

    exit_code: ClassVar[int] = 6
    code: ClassVar[str] = "already_running"
    template: ClassVar[str] = "process {owner_pid} is the daemon of {state_dir} already"
    state: ClassVar[str] = "it goes on undisturbed"
    hint: ClassVar[str] = "stop it first, or give this one another state_dir and socket"

    state_dir: str
    owner_pid: int


@dataclass(eq=False)
class AgentUnreachable(AgentError):
    """Nobody answers at a daemon's address, or not any more."""

    exit_code: ClassVar[int] = 17
    code: ClassVar[str] = "agent_unreachable"
    template: ClassVar[str] = "no agent at {address}: {reason}"
    hint: ClassVar[str] = "is `checkpoint-agent daemon` running there? Its socket is root's alone"

    address: str
    reason: str


@dataclass(eq=False)
class ActionNotFound(AgentError):
    """No action of that id is known on this node, or it was forgotten long after its end."""

    exit_code: ClassVar[int] = 10
    code: ClassVar[str] = "action_not_found"
    template: ClassVar[str] = "no action {action_id!r} on this node"
    state: ClassVar[str] = "nothing was touched"

    action_id: str


@dataclass(eq=False)
class FreezeNotFound(AgentError):
    """Nothing was ever frozen under that id, or it was thawed long ago."""

    exit_code: ClassVar[int] = 10
    code: ClassVar[str] = "freeze_not_found"
    template: ClassVar[str] = "no freeze {freeze_id!r}"
    state: ClassVar[str] = "nothing was touched"

    freeze_id: str


@dataclass(eq=False)
class QueueFull(AgentError):
    """As many actions wait as the node's configuration allows."""

    exit_code: ClassVar[int] = 6
    code: ClassVar[str] = "queue_full"
    template: ClassVar[str] = "{limit} actions wait on this node already"
    state: ClassVar[str] = "nothing was touched; those that wait go on"
    hint: ClassVar[str] = "try again later, or raise [checkpoint] queue_limit"

    limit: int


@dataclass(eq=False)
class ShuttingDown(AgentError):
    """The agent is being stopped and takes nothing new."""

    exit_code: ClassVar[int] = 6
    code: ClassVar[str] = "shutting_down"
    template: ClassVar[str] = "the agent is being stopped"
    state: ClassVar[str] = "nothing was touched"
    hint: ClassVar[str] = "try again when it is back"


@dataclass(eq=False)
class Cancelled(AgentError):
    """Somebody gave the action up."""

    exit_code: ClassVar[int] = 18
    code: ClassVar[str] = "cancelled"
    template: ClassVar[str] = "given up on request"
    state: ClassVar[str] = "all is as it was before: nothing was stored, nothing was started"


@dataclass(eq=False)
class AgentStopping(AgentError):
    """The agent was stopped, and the action was not done within the time it had for that."""

    exit_code: ClassVar[int] = 18
    code: ClassVar[str] = "agent_stopping"
    template: ClassVar[str] = "given up, because the agent was stopped"
    state: ClassVar[str] = "all is as it was before: nothing was stored, nothing was started"
    hint: ClassVar[str] = "ask for it again; a longer stop_seconds would have let it finish"


@dataclass(eq=False)
class AgentRestarted(AgentError):
    """The agent died in the middle of the action, and what it had begun was undone since."""

    exit_code: ClassVar[int] = 18
    code: ClassVar[str] = "agent_restarted"
    template: ClassVar[str] = "the agent ended in the middle of it{problem}"
    state: ClassVar[str] = "undone since: nothing is stored, started or frozen"
    hint: ClassVar[str] = "ask for it again"

    problem: str = ""


@dataclass(eq=False)
class CheckpointUnknown(AgentError):
    """The agent died in the middle of a checkpoint, and whether it is stored cannot be told."""

    exit_code: ClassVar[int] = 18
    code: ClassVar[str] = "checkpoint_unknown"
    template: ClassVar[str] = (
        "the agent ended in the middle of it, and whether {path} is stored is unknown: {reason}"
    )
    state: ClassVar[str] = "nothing is left frozen; the checkpoint is there as a whole, or not"
    hint: ClassVar[str] = (
        "when its store answers: `checkpoint-agent list --store URL` shows whether it is there, and"
        " `checkpoint-agent verify` with its path whether it can be trusted; if not, ask again"
    )

    path: str
    store: str
    reason: str


@dataclass(eq=False)
class RestoreUnknown(AgentError):
    """The agent died in the middle of a restore, and whether that was completed cannot be told."""

    exit_code: ClassVar[int] = 18
    code: ClassVar[str] = "restore_unknown"
    template: ClassVar[str] = (
        "the agent ended in the middle of it, and whether {path} was restored is unknown: {reason}"
    )
    state: ClassVar[str] = "it may run; nothing is left frozen, and the checkpoint is unchanged"
    hint: ClassVar[str] = (
        "look whether it runs, with `runc --root DIR list` for example; if not, ask for it again"
    )

    path: str
    reason: str


@dataclass(eq=False)
class PartFailed(AgentError):
    """One of the programs that `dev` consists of has ended by itself, or does not get ready."""

    exit_code: ClassVar[int] = 20
    code: ClassVar[str] = "part_failed"
    template: ClassVar[str] = "{part} {reason}; its log is {log}"
    state: ClassVar[str] = "the others have been ended in order; nothing is left frozen"
    hint: ClassVar[str] = "`checkpoint-agent doctor` says what this machine lacks"

    part: str
    reason: str
    log: str
    log_tail: str = ""


@dataclass(eq=False)
class ClusterUnreachable(AgentError):
    """Kubernetes' API server does not answer, or cannot now. Whether it acted is not known.

    ``retry_after`` is how many seconds it asks to be left alone; 0 where it does not say.
    """

    exit_code: ClassVar[int] = 21
    code: ClassVar[str] = "cluster_unreachable"
    template: ClassVar[str] = "cannot {operation}: {reason}"
    state: ClassVar[str] = "unknown: what was asked for may have been done"
    hint: ClassVar[str] = "check [cluster], and that the API server can be reached from here"

    operation: str
    reason: str
    retry_after: float = 0.0


@dataclass(eq=False)
class ClusterRefused(AgentError):
    """Kubernetes' API server says no. ``reason`` is its word for it, as `AlreadyExists`."""

    exit_code: ClassVar[int] = 21
    code: ClassVar[str] = "cluster_refused"
    template: ClassVar[str] = "cannot {operation}: {message}"
    state: ClassVar[str] = "nothing was changed in the cluster"
    hint: ClassVar[str] = "docs/kubernetes.md says what the agent needs to be allowed"

    operation: str
    status: int
    reason: str
    message: str
