"""What could not be cleaned up at the start: a CRIU that still rolled back, a store that was away.

A new daemon may be there before the orphans of the last one have ended; their operations are still
locked then, and are looked at again here.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from agent.actions import tell_recovered
from agent.config import Tools
from agent.operation.recovery import recover

# Seconds between two looks. One look at an empty directory takes 20 µs.
LOOK_SECONDS = 5.0

# Seconds after a look at what could not be undone, mostly because a store does not answer.
PROBLEM_SECONDS = 60.0


async def clear_leftovers(tools: Tools, state_dir: Path) -> None:
    """Clean up again and again; never returns. What this daemon works on is locked, and left."""
    while True:
        pause = LOOK_SECONDS
        # Not even a descriptor to look with is a fault: the daemon ends, and is started afresh.
        for found in await recover(tools=lambda: tools, state_dir=state_dir):
            tell_recovered(found)
            if found.problem:
                pause = PROBLEM_SECONDS
        await asyncio.sleep(pause)
