"""What became of an action whose agent died in the middle of it; or that nobody can tell."""

from __future__ import annotations

import asyncio
from typing import Final

from agent.actions import retry
from agent.actions.rows import Attempt, OpenAction
from agent.actions.worker import Outcome, Untold, Worker
from agent.errors import AgentError, AgentRestarted, CheckpointUnknown, RestoreUnknown
from agent.logs import get_logger
from agent.messages.model import ActionRequest, RestoreSpec
from agent.store import path_below

# Seconds, counted anew at each start of the agent. A store that is away for an hour costs nobody
# the truth; whoever does not want to wait for it gives the action up. Much more than the ten
# minutes that a kubelet gets for a pod (pod_restores.py), which end by themselves.
PATIENCE: Final = 7200.0

_log = get_logger(__name__)


async def find_out(worker: Worker, left: OpenAction, patience: float) -> Outcome:
    """What a dead agent had completed. Asks again and again, for ``patience`` seconds.

    Raises:
        AgentRestarted: nothing, and what it had begun is undone.
        CheckpointUnknown, RestoreUnknown: nobody could tell in all that time.
        AgentError: what it failed of.
    """
    reason, delay = "its store does not answer", retry.FIRST
    attempt = left.attempt
    assert attempt is not None  # noqa: S101 - without one there is nothing to find out
    try:
        # Around each question too: one to a file system whose server is gone never returns.
        async with asyncio.timeout(patience) as limit:
            while True:
                try:
                    found = await worker.aftermath(left.action.request, attempt, left.begun)
                    break
                except Untold as error:
                    reason = str(error)
                    _log.warning("cannot tell yet what became of it", reason=reason)
                delay = await retry.pause(delay)
    except TimeoutError:
        if not limit.expired():
            raise
        raise unknown(left.action.request, attempt, reason) from None
    if found is None:
        raise AgentRestarted
    return found


def unknown(request: ActionRequest, attempt: Attempt, reason: str) -> AgentError:
    """The end of an action of which nobody can tell what became of it, and why nobody can."""
    if isinstance(request.spec, RestoreSpec):
        return RestoreUnknown(request.spec.path, reason)
    return CheckpointUnknown(
        path_below(attempt.store, attempt.checkpoint_id), attempt.store, reason
    )
