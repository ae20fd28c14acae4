"""Why an action failed, as its last event says it: whatever was raised, and in a bounded size."""

from __future__ import annotations

from dataclasses import replace

from agent.errors import AgentError
from agent.messages.model import ActionType, Failure

# Characters of each text. An event has to fit into a message of the broker (1 MiB by default),
# whatever a tool has to say.
_MOST = 16 << 10

# What is true after every failure that does not say otherwise; a store's failure does not know what
# it was for.
_UNDONE = {
    ActionType.CHECKPOINT: "the target runs as before; this checkpoint does not exist",
    ActionType.RESTORE: "nothing is running from it; the checkpoint is unchanged",
}


def failure_of(error: BaseException, kind: ActionType) -> Failure:
    """What an action of this kind failed of; everything but an AgentError is a bug."""
    if not isinstance(error, AgentError):
        message = f"{AgentError.template}: {type(error).__name__}: {error}"
        return Failure(
            code=AgentError.code,
            message=message[:_MOST],
            state="everything was put back as far as it could be",
            hint="the agent's log has the traceback",
        )
    failure = Failure.of(error)
    return replace(
        failure,
        message=failure.message[:_MOST],
        state=failure.state or _UNDONE[kind],
        log_tail=failure.log_tail[-_MOST:],
        details={
            name: value[:_MOST] if isinstance(value, str) else value
            for name, value in failure.details.items()
        },
    )
