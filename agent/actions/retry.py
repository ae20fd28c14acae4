"""How long to wait until what could not be written or read is tried again."""

from __future__ import annotations

import asyncio
import random
from typing import Final

# Seconds: at first, and at most.
FIRST: Final = 0.2
_LAST = 30.0


async def pause(delay: float) -> float:
    """Wait about that long; returns how long to wait the next time."""
    await asyncio.sleep(delay * random.uniform(0.8, 1.2))  # noqa: S311 - nothing to be guessed
    return min(delay * 2, _LAST)
