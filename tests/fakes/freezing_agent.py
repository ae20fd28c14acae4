"""An agent that freezes a container and keeps it frozen: a process to kill.

python -m tests.fakes.freezing_agent STATE_DIR RUNC_ROOT CONTAINER
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from agent.actions import Freezes
from agent.targets import RuncTarget

_LIMIT = 60.0


async def _main(state_dir: str, root: str, container: str) -> None:
    freezes = Freezes(state_dir=Path(state_dir), runc_roots=[Path(root)], limit_seconds=_LIMIT)
    await freezes.freeze(RuncTarget(container, Path(root)), _LIMIT)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
