"""After a heartbeat, or a drain: what newer checkpoints of the pod have replaced is deleted."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Final

from agent import retention
from agent.actions import Executor
from agent.errors import AgentError, InvalidArgument
from agent.logs import get_logger
from agent.messages.model import RestoreSpec, State
from agent.store import open_checkpoint

log = get_logger(__name__)

_OPEN: Final = tuple(state for state in State if not state.is_terminal)

# More than a node ever has under way.
_MANY: Final = 100_000


async def keep_newest(path: str, keep: int, executor: Executor, state_dir: Path) -> int:
    """Delete what is beyond the newest ``keep`` heartbeats of the same pod; returns how many.

    Never what a restore on this node reads or is about to read. What fails is logged, and is tried
    again after the next heartbeat.

    Args:
        path: of the checkpoint that was just made.
    """
    deleted = 0
    try:
        store, newest = open_checkpoint(path)
        row = await asyncio.to_thread(retention.row, store, newest)
        if row is None:
            return 0
        if lost := row.lost():
            log.warning(
                "a heartbeat lacks containers of the one before it, which stays for them",
                checkpoint=newest,
                containers=lost,
            )
        for name in row.surplus(keep):
            # Anew for each: a deletion may take a while, and somebody may ask for a restore.
            if name in await _read_by_restores(executor, state_dir):
                log.info("a restore reads it: kept for now", checkpoint=name)
                continue
            await asyncio.to_thread(retention.delete, store, name, state_dir)
            log.info("a newer heartbeat has replaced it: deleted", checkpoint=name)
            deleted += 1
    except AgentError as error:
        log.warning("older heartbeats stay for now", reason=str(error))
    return deleted


async def _read_by_restores(executor: Executor, state_dir: Path) -> set[str]:
    """Ids of what restores need: those that are under way, and that wait.

    In whichever store: one has many names (links, dots, a directory above it), an id is unique.
    """
    needed = await asyncio.to_thread(retention.being_restored, state_dir)
    for action in await executor.list(_OPEN, _MANY):
        spec = action.request.spec
        # One whose path is none will fail for it.
        with contextlib.suppress(InvalidArgument):
            if isinstance(spec, RestoreSpec):
                needed.add(open_checkpoint(spec.path)[1])
    return needed
