"""Tasks that are to run as long as the daemon does: one that ends takes it down, in order.

A consumer that has quietly died is worse than a daemon that systemd starts again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from agent.logs import get_logger

log = get_logger(__name__)


class EternalTasks:
    """Starts them, watches them, and ends them in the reverse order."""

    def __init__(self, on_fault: Callable[[], None]) -> None:
        """``on_fault`` is called in the loop when one has ended that nobody has stopped."""
        self._on_fault = on_fault
        self._tasks: list[asyncio.Task[Any]] = []

    def start(self, name: str, work: Coroutine[Any, Any, Any]) -> None:
        """Run ``work`` until :meth:`stop`."""
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(self._ended)
        self._tasks.append(task)

    def release(self) -> None:
        """From now on they may end by themselves: what they work with is being stopped."""
        for task in self._tasks:
            task.remove_done_callback(self._ended)

    async def stop(self) -> None:
        """Cancel all of them and wait until they have ended."""
        while self._tasks:
            task = self._tasks[-1]
            task.remove_done_callback(self._ended)
            task.cancel()
            await asyncio.wait({task})
            self._tasks.pop()
            if not task.cancelled() and (error := task.exception()) is not None:
                log.error("failed while it was stopped", task=task.get_name(), exc_info=error)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        error = None if task.cancelled() else task.exception()
        log.critical(
            "a task that never ends has ended: the daemon stops",
            task=task.get_name(),
            exc_info=error,
        )
        self._on_fault()
