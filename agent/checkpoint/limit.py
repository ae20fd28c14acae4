"""A freeze that ends: how long a checkpoint may at most keep its members from running.

Whoever copies them out waits for memory when the store is slow, CRIU waits for whoever copies, and
the tasks for CRIU. A store that fails says so; one that hangs, or moves just enough, never does.
"""

from __future__ import annotations

import asyncio

from agent.capture.pipeline import Pipeline
from agent.errors import FrozenTooLong
from agent.logs import get_logger

log = get_logger(__name__)


class FrozenLimit:
    """Fails a checkpoint whose members stand still for longer than ``seconds``.

    The pipeline fails as if a thread had, so that everything is put back as after any other
    failure. For the event loop's thread only.
    """

    def __init__(self, pipeline: Pipeline, target: str, seconds: float) -> None:
        self._pipeline, self._target, self._seconds = pipeline, target, seconds
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """The first of them stands still; of the others nothing is counted anew."""
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._seconds, self._expire)

    def end(self) -> None:
        """They run, or nothing of them is to be put back any more."""
        if self._timer is not None:
            self._timer.cancel()

    def _expire(self) -> None:
        # The error is told when everything is put back, and a store that hangs keeps its threads.
        log.warning("frozen for too long; given up", target=self._target, seconds=self._seconds)
        self._pipeline.fail(FrozenTooLong(self._target, self._seconds))
