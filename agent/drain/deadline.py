"""How long a drain has, as far as is known: that may change while it goes on."""

from __future__ import annotations

import asyncio
from typing import Final

# Seconds before the end in which nothing is begun: less than a checkpoint takes on a node that is
# busy with others. Of a short time at most a fifth.
_LAST_SECONDS, _LAST_PART = 2.0, 0.2


class Deadline:
    """When the node goes, by the event loop's clock.

    Attributes:
        halted: set when nothing is to be begun any more; that is final.
        over: set when there is no time left, also for what has begun.
    """

    def __init__(self, seconds: float, *, told: bool = True) -> None:
        """``seconds``: from now. ``told``: somebody knows that; it is not only assumed."""
        self.halted: Final = asyncio.Event()
        self.over: Final = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._told = told
        self._timers: list[asyncio.TimerHandle] = []
        self._set(self._loop.time() + seconds)

    @property
    def left(self) -> float:
        """Seconds until it, at least 0."""
        return max(0.0, self._until - self._loop.time())

    def tell(self, until: float) -> None:
        """Somebody knows it: that replaces an assumption. Of two who know the earlier counts."""
        if not self._told or until < self._until:
            self._told = True
            self._set(until)

    def close(self) -> None:
        """Nobody looks at it any more."""
        for timer in self._timers:
            timer.cancel()

    def _set(self, until: float) -> None:
        self.close()
        self._until = until
        last = min(_LAST_SECONDS, self.left * _LAST_PART)
        self._timers = [
            self._loop.call_at(until - last, self.halted.set),
            self._loop.call_at(until, self.over.set),
        ]
