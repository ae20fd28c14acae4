"""Everything that can go wrong, as classes with fields.

An error says three things to a person: what failed (``str(error)``), what state things are in now
(``state``) and what to try (``hint``). Libraries' and tools' own exceptions are translated into
these once, where they are met; only the command line and the servers turn them into text.

``exit_code`` is what the command line exits with and ``code`` what ``-o json`` prints; both are
part of the interface and are listed in the README.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


class AgentError(Exception):
    """Root of the tree. Subclasses are dataclasses whose fields fill ``template``."""

    exit_code: ClassVar[int] = 1
    code: ClassVar[str] = "internal"
    template: ClassVar[str] = "unexpected error"
    state: ClassVar[str] = ""
    hint: ClassVar[str] = ""

    def __str__(self) -> str:
        return self.template.format(**vars(self))

    def fields(self) -> dict[str, object]:
        """The error's own fields, for machines."""
        return dict(vars(self))


@dataclass(eq=False)
class InvalidArgument(AgentError):
    """A value from outside (an option, a path, a URL) that cannot be used."""

    exit_code: ClassVar[int] = 2
    code: ClassVar[str] = "invalid_argument"
    template: ClassVar[str] = "{argument}: {reason}"
    state: ClassVar[str] = "nothing was touched"

    argument: str
    reason: str


@dataclass(eq=False)
class MissingTool(AgentError):
    """A program or library that the agent stands on is not there, or too old."""

    exit_code: ClassVar[int] = 3
    code: ClassVar[str] = "missing_tool"
    template: ClassVar[str] = "{tool}: {reason}"
    state: ClassVar[str] = "nothing was touched"
    hint: ClassVar[str] = "run `make setup`, then `checkpoint-agent doctor`"

    tool: str
    reason: str


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
class StoreFailed(AgentError):
    """The store could not read or write: full, read-only, unreachable, forbidden."""

    exit_code: ClassVar[int] = 9
    code: ClassVar[str] = "store_failed"
    template: ClassVar[str] = "{operation} {url}: {reason}"
    hint: ClassVar[str] = "check free space, permissions, the store's URL and its credentials"

    operation: str
    url: str
    reason: str


@dataclass(eq=False)
class CheckpointNotFound(AgentError):
    """No committed checkpoint is at that path: without a manifest it does not exist."""

    exit_code: ClassVar[int] = 10
    code: ClassVar[str] = "checkpoint_not_found"
    template: ClassVar[str] = "no checkpoint at {path}"
    hint: ClassVar[str] = "`checkpoint-agent list --store URL` shows what is there"

    path: str


@dataclass(eq=False)
class CheckpointCorrupt(AgentError):
    """Stored bytes are not what was written: truncated, flipped, or not ours."""

    exit_code: ClassVar[int] = 11
    code: ClassVar[str] = "checkpoint_corrupt"
    template: ClassVar[str] = "{path} is damaged: {reason}"
    hint: ClassVar[str] = "restore another checkpoint; this one cannot be trusted"

    path: str
    reason: str


@dataclass(eq=False)
class FormatTooNew(AgentError):
    """The manifest was written by a newer agent than this one."""

    exit_code: ClassVar[int] = 12
    code: ClassVar[str] = "format_too_new"
    template: ClassVar[str] = "{path} has format {version}; this agent reads up to {supported}"
    hint: ClassVar[str] = "use the version of checkpoint-agent that wrote it, or a newer one"

    path: str
    version: int
    supported: int


@dataclass(eq=False)
class BundleInvalid(AgentError):
    """An OCI bundle that is missing, unreadable or without a usable config.json."""

    exit_code: ClassVar[int] = 13
    code: ClassVar[str] = "bundle_invalid"
    template: ClassVar[str] = "bundle {bundle}: {reason}"
    hint: ClassVar[str] = "pass --bundle DIR with a config.json and the root filesystem it names"

    bundle: str
    reason: str


@dataclass(eq=False)
class AlreadyExists(AgentError):
    """Something of that name is there already; nothing is ever overwritten."""

    exit_code: ClassVar[int] = 14
    code: ClassVar[str] = "already_exists"
    template: ClassVar[str] = "{what} already exists: {name}"
    state: ClassVar[str] = "it was left as it is"

    what: str
    name: str


@dataclass(eq=False)
class Interrupted(AgentError):
    """A signal ended the operation; it was rolled back."""

    code: ClassVar[str] = "interrupted"
    template: ClassVar[str] = "interrupted by {signal_name}"
    state: ClassVar[str] = "rolled back: the target runs as before, nothing was stored"

    signal_name: str
    signal_number: int


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
class TargetFrozen(TargetBusy):
    """It is frozen on somebody's request already."""

    template: ClassVar[str] = "{target} is kept frozen by another call to process {owner_pid}"
    state: ClassVar[str] = "it stays frozen until that call's thaw or time limit"
    hint: ClassVar[str] = "thaw that one, or wait for its limit"
