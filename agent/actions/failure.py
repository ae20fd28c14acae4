"""Why an action failed, as its last event says it: whatever was raised, and in a bounded size."""

from __future__ import annotations

import json
from dataclasses import replace

from agent.errors import AgentError
from agent.messages.model import ActionType, Failure

# Bytes of each text, in JSON. An event has to fit into a message of the broker (1 MiB by default)
# and what the journal reads back (256 KiB), whatever a tool has to say in whatever script.
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
            message=_head(message),
            state="everything was put back as far as it could be",
            hint="the agent's log has the traceback",
        )
    failure = bounded(Failure.of(error))
    return replace(failure, state=failure.state or _UNDONE[kind])


def bounded(failure: Failure) -> Failure:
    """The same, as it can be written down: of each text so much, and all of it UTF-8."""
    return replace(
        failure,
        message=_head(failure.message),
        state=_head(failure.state),
        field=_head(failure.field),
        log_tail=_tail(failure.log_tail),
        details={
            name: _head(value) if isinstance(value, str) else value
            for name, value in failure.details.items()
        },
    )


def _head(text: str) -> str:
    text = _speakable(text[:_MOST])
    while (size := len(json.dumps(text))) > _MOST:
        text = text[: len(text) * _MOST // size]
    return text


def _tail(text: str) -> str:
    # Never by a start of -0, which is all of it: there is always something of a text that fits.
    text = _speakable(text[-_MOST:])
    while (size := len(json.dumps(text))) > _MOST:
        text = text[-(len(text) * _MOST // size) :]
    return text


def _speakable(text: str) -> str:
    """File names need not be UTF-8. Python passes their bytes on as what no message can carry."""
    return text.encode(errors="backslashreplace").decode()
