"""Copies into the pipeline, in threads that have ended when the copy is over in whatever way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from agent.capture.buffers import Closed
from agent.capture.pipeline import Pipeline
from agent.host.own_thread import in_own_thread
from agent.host.shield import to_the_end


async def copy_in_thread(pipeline: Pipeline, copy: Callable[[], None]) -> None:
    """Run ``copy``, which fills the pipeline's buffers. Raises what it does.

    Cancelled, the thread is woken where it waits for memory and waited for: a buffer that somebody
    still writes into must not be lent to anybody else. Nothing but memory may be what it waits for.

    Raises:
        AgentError: why the pipeline had failed, if that is what ended the copy.
    """
    work = asyncio.ensure_future(in_own_thread(copy))
    try:
        await asyncio.shield(work)
    except asyncio.CancelledError:
        pipeline.fail(Closed())
        raise
    except Closed:
        # When storage failed first, that it takes nothing more is only its echo.
        pipeline.raise_failure()
        raise
    finally:
        await to_the_end(asyncio.wait([work]))
        if not work.cancelled():
            work.exception()  # looked at, so that asyncio does not report it as lost
