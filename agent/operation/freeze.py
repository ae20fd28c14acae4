"""Nothing stays frozen: whatever happens in the block, afterwards the cgroup runs as it did before.

CRIU freezes and thaws by itself, and rolls back when it fails. These context managers are for when
it could not: it was killed, or runc was, or the fallback froze the container on its own; and for
several containers, which have to stand still together. For the death of the agent itself there is
the journal.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager

from agent.host.cgroup import Freezer
from agent.host.own_thread import in_own_thread
from agent.host.shield import to_the_end


class CannotFreeze(Exception):
    """One of the cgroups did not freeze; none is frozen any more."""

    def __init__(self, freezer: Freezer, reason: str) -> None:
        super().__init__(reason)
        self.freezer, self.reason = freezer, reason


class Freeze:
    """How long a freeze lasts: from the first cgroup that is told to stop to the last that runs."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._ended: float | None = None

    @property
    def seconds(self) -> float:
        """So far, or all of it when it is over."""
        return (self._ended or time.monotonic()) - self._began

    def end(self) -> None:
        """The last one runs."""
        self._ended = time.monotonic()


@contextmanager
def thawed_afterwards(freezer: Freezer | None) -> Iterator[None]:
    """Thaw at the end what was not frozen at the beginning."""
    paused_by_owner = freezer is not None and freezer.is_frozen()
    try:
        yield
    finally:
        if freezer is not None and not paused_by_owner and freezer.is_frozen():
            freezer.thaw()


@asynccontextmanager
async def frozen(freezers: Sequence[Freezer]) -> AsyncIterator[Freeze]:
    """Freeze all now, thaw all at the end; what is frozen already stays so.

    Thawing is a write of microseconds and done in place: nothing can come between.

    Raises:
        CannotFreeze: one of them did not freeze.
    """
    freeze = Freeze()
    with contextlib.ExitStack() as thawing:
        thawing.callback(freeze.end)
        for freezer in freezers:
            thawing.enter_context(thawed_afterwards(freezer))
        # In a thread: a task in the middle of a long system call lets everybody wait.
        await to_the_end(in_own_thread(lambda: _freeze(freezers)))
        yield freeze


def _freeze(freezers: Sequence[Freezer]) -> None:
    """All are told to before any is waited for, so that they stop within microseconds."""
    for step in (Freezer.begin, Freezer.wait):
        for freezer in freezers:
            try:
                step(freezer)
            except OSError as error:
                raise CannotFreeze(freezer, error.strerror or str(error)) from error
