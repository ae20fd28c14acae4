"""Whether a container is what a restore has left, or one that somebody has made since.

Its name does not tell. A restore that fails, or whose agent dies, frees the name: whoever keeps a
service up starts it again a moment later, or its owner does so hours later.
"""

from __future__ import annotations

import asyncio
import time

from agent.errors import TargetNotFound
from agent.host import runc
from agent.operation.workplace import Workplace
from agent.targets import RuncTarget

# Seconds between the directory that runc makes for a container and what it writes into it about
# the first process: 0.15 on two busy cores.
_CREATION = 1.0
_AGAIN = 0.05


async def is_left_by(place: Workplace, target: RuncTarget) -> bool:
    """Whether there is a container of that id, and a restore in this workplace has made it."""
    deadline = time.monotonic() + _CREATION
    while runc.exists(target):
        if (first := _first_process(target)) is not None:
            return place.has_made(*first)
        # Half-made: by a runc that was killed, or by one that is at it.
        if not place.has_begun:
            return False
        if time.monotonic() > deadline:
            return True
        await asyncio.sleep(_AGAIN)
    return False


def _first_process(target: RuncTarget) -> tuple[int, int] | None:
    """Its pid and start time, as far as runc has written them down."""
    try:
        found = runc.load(target)
    except TargetNotFound:
        return None
    return (found.pid, found.started) if found.pid else None
