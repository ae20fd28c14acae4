"""Work that outlives the call it began in."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine

from agent.errors import AgentError
from agent.logs import get_logger

_log = get_logger(__name__)


class Background:
    """What a call leaves to be done when its client has gone. Belongs to one loop."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()

    @property
    def is_stopping(self) -> bool:
        """Whether calls end because of the agent, not because of their clients."""
        return self._stopping.is_set()

    def start(self, work: Coroutine[None, None, object]) -> None:
        """Do ``work``; a failure is logged, there is nobody left to tell."""
        task = asyncio.create_task(_logged(work))
        # The loop itself holds tasks only weakly.
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def stop(self) -> None:
        """From now on calls are cancelled because the agent ends."""
        self._stopping.set()

    async def settle(self) -> None:
        """Return when everything that was started has ended."""
        while self._tasks:
            await asyncio.wait(self._tasks)


async def _logged(work: Coroutine[None, None, object]) -> None:
    try:
        await work
    except AgentError as error:
        _log.warning("after its client had gone", code=error.code, reason=str(error))
    except Exception:  # noqa: BLE001 - logged, and nothing else waits for it
        _log.exception("a bug, after its client had gone")
