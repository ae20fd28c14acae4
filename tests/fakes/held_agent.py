"""An agent whose store stops at a chosen step for ever: a process to kill at that moment.

    python -m tests.fakes.held_agent checkpoint STATE_DIR STORE STEP MARKER RUNC_ROOT CONTAINER STOP
    python -m tests.fakes.held_agent pod STATE_DIR STORE STEP MARKER RUNC_ROOT CONTAINER...
    python -m tests.fakes.held_agent restore STATE_DIR STORE STEP MARKER CHECKPOINT

MARKER is created when the step is reached; STOP is ``stop`` or anything else.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import cast

from agent.checkpoint import CheckpointRequest, MemberRequest, checkpoint
from agent.config import find_tools
from agent.restore import RestoreRequest, restore
from agent.store import Store, open_store
from agent.targets import RuncTarget
from tests.fakes.slow_store import Gate, Step, gated


async def _checkpoint(state_dir: Path, store: Store, root: str, container: str, stop: str) -> None:
    request = CheckpointRequest(
        members=(MemberRequest(RuncTarget(container, Path(root))),),
        store=store,
        stop=stop == "stop",
    )
    await checkpoint(request, tools=find_tools(), state_dir=state_dir)


async def _pod(state_dir: Path, store: Store, root: str, *containers: str) -> None:
    members = tuple(MemberRequest(RuncTarget(each, Path(root))) for each in containers)
    request = CheckpointRequest(members=members, store=store)
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
    works: dict[str, Callable[..., Coroutine[None, None, None]]] = {
        "checkpoint": _checkpoint,
        "pod": _pod,
        "restore": _restore,
    }
    work = works[command]
    asyncio.run(work(Path(state_dir), store, *rest))


if __name__ == "__main__":
    _main(*sys.argv[1:])
