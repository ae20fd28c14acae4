"""How fast an action gets on, said at most twice a second."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from agent.messages.model import Progress
from agent.report import Update

# Seconds between two reports: what a person can follow, and the broker has to keep.
_INTERVAL = 0.5

# Seconds that the rate is taken over: the last one says what is going on now.
_WINDOW = 1.0


class Meter:
    """Makes of an operation's updates the progress worth telling."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        # What takes no longer than an interval says nothing in between.
        self._said = now()
        self._seen: deque[tuple[float, int]] = deque([(now(), 0)])

    def update(self, update: Update) -> Progress | None:
        """Progress, if it is time for it."""
        now = self._now()
        self._seen.append((now, update.bytes_raw))
        while len(self._seen) > 2 and now - self._seen[1][0] >= _WINDOW:
            self._seen.popleft()
        if now - self._said < _INTERVAL:
            return None
        self._said = now
        began, before = self._seen[0]
        seconds = now - began
        return Progress(
            phase=update.phase,
            bytes_raw=update.bytes_raw,
            bytes_stored=update.bytes_stored,
            bytes_total=update.bytes_total or 0,
            bytes_per_second=round((update.bytes_raw - before) / seconds) if seconds else 0.0,
        )
