"""Everything that can go wrong, as classes with fields.

An error says three things to a person: what failed (``str(error)``), what state things are in now
(``state``) and what to try (``hint``). Libraries' and tools' own exceptions are translated into
these once, where they are met; only the command line and the servers turn them into text.

``exit_code`` is what the command line exits with and ``code`` what ``-o json`` prints; both are
part of the interface and are listed in the README.
"""

from agent.errors.base import (
    AgentError,
    AlreadyExists,
    Interrupted,
    InvalidArgument,
    MissingTool,
)
from agent.errors.operations import (
    DumpFailed,
    FrozenTooLong,
    GpuStuck,
    NetworkStuck,
    RestoreFailed,
    RestoreNotUndone,
    StartedCold,
    TargetLost,
)
from agent.errors.service import (
    ActionNotFound,
    AgentRestarted,
    AgentStopping,
    AgentUnreachable,
    AlreadyRunning,
    BrokerFailed,
    Cancelled,
    CheckpointUnknown,
    ClusterRefused,
    ClusterUnreachable,
    FreezeNotFound,
    PartFailed,
    QueueFull,
    RedeliveredTooOften,
    RestoreUnknown,
    ShuttingDown,
)
from agent.errors.stored import (
    CheckpointCorrupt,
    CheckpointNotFound,
    FormatTooNew,
    StoreFailed,
)
from agent.errors.targets import (
    BundleInvalid,
    PodAmbiguous,
    PodNotFound,
    TargetBusy,
    TargetFrozen,
    TargetNotCheckpointable,
    TargetNotFound,
)

__all__ = [
    "ActionNotFound",
    "AgentError",
    "AgentRestarted",
    "AgentStopping",
    "AgentUnreachable",
    "AlreadyExists",
    "AlreadyRunning",
    "BrokerFailed",
    "BundleInvalid",
    "Cancelled",
    "CheckpointCorrupt",
    "CheckpointNotFound",
    "CheckpointUnknown",
    "ClusterRefused",
    "ClusterUnreachable",
    "DumpFailed",
    "FormatTooNew",
    "FreezeNotFound",
    "FrozenTooLong",
    "GpuStuck",
    "Interrupted",
    "InvalidArgument",
    "MissingTool",
    "NetworkStuck",
    "PartFailed",
    "PodAmbiguous",
    "PodNotFound",
    "QueueFull",
    "RedeliveredTooOften",
    "RestoreFailed",
    "RestoreNotUndone",
    "RestoreUnknown",
    "ShuttingDown",
    "StartedCold",
    "StoreFailed",
    "TargetBusy",
    "TargetFrozen",
    "TargetLost",
    "TargetNotCheckpointable",
    "TargetNotFound",
]
