"""How long this machine let nobody run, to tell a workload's own pauses from those of everybody."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.waiting import meanwhile

# Seconds between two looks.
_PERIOD = 0.005


@dataclass
class Stalls:
    """``longest``: seconds for which a thread that only looks at the clock was not let run."""

    longest: float = 0.0


@contextmanager
def stalls() -> Iterator[Stalls]:
    """Look for them until the block ends.

    Machines of two cores that others have too were seen to stand still for five seconds: a pause
    that a workload has noticed is no longer than what it was told, and this one.
    """
    found = Stalls()

    def look(over: threading.Event) -> None:
        last = time.monotonic()
        while not over.wait(_PERIOD):
            now = time.monotonic()
            found.longest = max(found.longest, now - last)
            last = now

    with meanwhile(look):
        yield found
