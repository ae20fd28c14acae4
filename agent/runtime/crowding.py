"""Containers that others keep waiting: that is no reason for a pod to lose its checkpoint.

When a node is drained, thirty pods may come to another one at once, where two are restored at a
time. Who has had no time is told to come again, and the kubelet does, with pauses of up to 5 min.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any, Final

from agent.errors import RestoreFailed
from agent.runtime.question import Question

# Of a container's time. Who has waited for less was late for itself.
_MUCH: Final = 0.1


class Crowded(RestoreFailed):
    """Its time went by with other restores: it may succeed the next time."""


async def enter(
    question: Question,
    held: contextlib.AsyncExitStack,
    turn: contextlib.AbstractAsyncContextManager[Any],
) -> None:
    """Wait for a turn, which ``held`` gives back.

    Raises:
        Crowded: none has come in time.
        HungUp: nobody waits for it any more.
    """
    begun = time.monotonic()
    try:
        async with (
            question.conversation.attended(),
            asyncio.timeout(question.deadline - begun),
        ):
            await held.enter_async_context(turn)
    except TimeoutError:
        pass
    question.waited += time.monotonic() - begun
    if time.monotonic() >= question.deadline:
        raise _crowded(question)


def late(question: Question) -> RestoreFailed:
    """What a container is told that is not back at its deadline."""
    if question.waited > _MUCH * question.limit_seconds:
        return _crowded(question)
    return RestoreFailed(question.name, f"not done within {question.limit_seconds:g} s")


def _crowded(question: Question) -> Crowded:
    waited, limit = question.waited, question.limit_seconds
    reason = f"the node is busy with other restores, for {waited:.1f} of the {limit:g} s there are"
    return Crowded(question.name, reason)
