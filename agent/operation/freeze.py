"""Nothing stays frozen: whatever happens in the block, afterwards the cgroup runs as it did before.

CRIU freezes and thaws by itself, and rolls back when it fails. These context managers are for when
it could not: it was killed, or runc was, or the fallback froze the container on its own. For the
death of the agent itself there is the journal.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from agent.host.cgroup import Freezer


@contextmanager
def thawed_afterwards(freezer: Freezer | None) -> Iterator[None]:
    """Thaw at the end what was not frozen at the beginning."""
    paused_by_owner = freezer is not None and freezer.is_frozen()
    try:
        yield
    finally:
        if freezer is not None and not paused_by_owner and freezer.is_frozen():
            freezer.thaw()


@contextmanager
def frozen(freezer: Freezer) -> Iterator[None]:
    """Freeze now, thaw at the end; one that is frozen already stays so."""
    with thawed_afterwards(freezer):
        freezer.freeze()
        yield
