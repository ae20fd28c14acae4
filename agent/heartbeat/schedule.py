"""When which pod is due: spread over the interval, never in step, later after failures.

No I/O; times are those of one clock that only goes forward.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from agent.heartbeat.wishes import Wish

# What a pod's interval is multiplied with at most, after failures.
MOST_BACKOFF: Final = 8

# Of an interval, and seconds at most, until one that was put off is looked at again: pressure of
# ten seconds should not cost an hour's heartbeat.
_PUT_OFF, _LONGEST_PUT_OFF = 0.1, 30.0


@dataclass(slots=True)
class Beat:
    """One pod's place in the row. ``failures`` are those since the last one that worked."""

    uid: str
    wish: Wish
    due: float
    failures: int = 0


class Schedule:
    """Every pod that has a heartbeat, by its UID."""

    def __init__(self, jitter: float, chance: random.Random) -> None:
        """``jitter`` is a part of an interval: 0.1 is a tenth more or less."""
        self._jitter, self._chance = jitter, chance
        self._beats: dict[str, Beat] = {}

    def update(self, wishes: Mapping[str, Wish], now: float) -> None:
        """Who is here now. Who asks for something else than before begins anew."""
        for uid in self._beats.keys() - wishes.keys():
            del self._beats[uid]
        for uid, wish in wishes.items():
            known = self._beats.get(uid)
            if known is None or known.wish != wish:
                first = wish.interval * (spread(uid) + self._jitter * self._chance.random())
                self._beats[uid] = Beat(uid, wish, now + first)

    def due(self, now: float) -> Beat | None:
        """Who has been due for the longest time."""
        first = min(self._beats.values(), key=lambda beat: beat.due, default=None)
        return first if first is not None and first.due <= now else None

    def next_due(self) -> float:
        """When the next one is; infinite where there is none."""
        return min((beat.due for beat in self._beats.values()), default=float("inf"))

    def succeeded(self, beat: Beat, now: float) -> None:
        """The next one is an interval after this one's end."""
        beat.failures = 0
        beat.due = now + self._around(beat.wish.interval)

    def failed(self, beat: Beat, now: float) -> None:
        """Twice as long after each failure, up to eight intervals."""
        beat.failures += 1
        factor = min(2 ** min(beat.failures, 16), MOST_BACKOFF)
        beat.due = now + self._around(beat.wish.interval * factor)

    def put_off(self, beat: Beat, now: float) -> None:
        """Nothing was tried: soon again."""
        beat.due = now + self._around(min(beat.wish.interval * _PUT_OFF, _LONGEST_PUT_OFF))

    def _around(self, seconds: float) -> float:
        return seconds * self._chance.uniform(1 - self._jitter, 1 + self._jitter)


def spread(uid: str) -> float:
    """Where in an interval a pod's first one is, from 0 to 1: the same after every restart, and
    evenly spread over many pods.
    """
    return int.from_bytes(hashlib.sha256(uid.encode()).digest()[:8]) / 2**64
