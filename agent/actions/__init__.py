"""What an action is until it is terminal: accepted, journalled, run, reported.

``Executor`` is the whole of it for those who bring actions (events, rpc), ``Engine`` does the work.
``Outbox`` is what the broker still has to be told, ``Freezes`` what callers keep frozen, and
``PodRestores`` what is brought back into pods that Kubernetes makes.
"""

from agent.actions.engine import Engine
from agent.actions.executor import Executor
from agent.actions.freezes import Freeze, Freezes, Thawed
from agent.actions.outbox import Outbox
from agent.actions.places import allowed_checkpoint, allowed_store
from agent.actions.pod_restores import Expected, PodRestores
from agent.actions.rows import OutboxRow
from agent.actions.summary import tell_recovered

__all__ = [
    "Engine",
    "Executor",
    "Expected",
    "Freeze",
    "Freezes",
    "Outbox",
    "OutboxRow",
    "PodRestores",
    "Thawed",
    "allowed_checkpoint",
    "allowed_store",
    "tell_recovered",
]
