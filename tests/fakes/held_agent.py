"""An agent whose store stops at a chosen step for ever: a process to kill at that moment.

    python -m tests.fakes.held_agent checkpoint STATE_DIR STORE STEP MARKER RUNC_ROOT CONTAINER STOP
    python -m tests.fakes.held_agent restore STATE_DIR STORE STEP MARKER CHECKPOINT

MARKER is created when the step is reached; STOP is ``stop`` or anything else.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import cast

from agent.checkpoint import CheckpointRequest, checkpoint
from agent.config import find_tools
from agent.restore import RestoreRequest, restore
from agent.store import Store, open_store
from agent.targets import RuncTarget
from tests.fakes.slow_store import Gate, Step, gated


async def _checkpoint(state_dir: Path, store: Store, root: str, container: str, stop: str) -> None:
    request = CheckpointRequest(
        target=RuncTarget(container, Path(root)), store=store, stop=stop == "stop"
    )
    await checkpoint(request, tools=find_tools(), state_dir=state_dir)


async def _restore(state_dir: Path, store: Store, checkpoint_id: str) -> None:
    request = RestoreRequest(store, checkpoint_id)
    await restore(request, tools=find_tools(), state_dir=state_dir)


def _main(command: str, state_dir: str, url: str, step: str, marker: str, *rest: str) -> None:
    gate = Gate()

    def hold() -> None:
        Path(marker).touch()
        gate()

    store = gated(open_store(url), cast(Step, step), hold)
    work = _checkpoint if command == "checkpoint" else _restore
    asyncio.run(work(Path(state_dir), store, *rest))


if __name__ == "__main__":
    _main(*sys.argv[1:])
