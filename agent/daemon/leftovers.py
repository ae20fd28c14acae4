"""What could not be cleaned up at the start: a CRIU that still rolled back, a store that was away.

A new daemon may be there before the orphans of the last one have ended; their operations are still
locked then, and are looked at again here.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from agent.actions import tell_recovered
from agent.config import Tools
from agent.logs import get_logger
from agent.operation.recovery import recover

log = get_logger(__name__)

# Seconds between two looks. One look at an empty directory takes 20 µs.
LOOK_SECONDS = 5.0

# Seconds after a look at what could not be undone, mostly because a store does not answer.
PROBLEM_SECONDS = 60.0


async def clear_leftovers(tools: Tools, state_dir: Path) -> None:
    """Clean up again and again; never returns. What this daemon works on is locked, and left."""
    while True:
        pause = LOOK_SECONDS
        try:
            recovered = await recover(tools=lambda: tools, state_dir=state_dir)
        except OSError as error:
            # Without a descriptor left, for one: whatever else the daemon does goes on.
            log.warning("leftovers not looked for", reason=str(error))
            recovered = []
        for found in recovered:
            tell_recovered(found)
            if found.problem:
                pause = PROBLEM_SECONDS
        await asyncio.sleep(pause)
