"""After a kill -9: what dead operations left behind is thawed, removed and forgotten.

CRIU and runc roll back by themselves when the agent dies, because they lose its sockets. This is
for when they died too, for what is half-written in the store, and for the working files.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from agent.config import Tools
from agent.errors import AgentError, TargetNotFound
from agent.host import network, process, runc
from agent.host.cgroup import Freezer
from agent.manifest import MANIFEST
from agent.operation import journal
from agent.store import open_store
from agent.targets import RuncTarget

RESTORE_STATS = "stats-restore"


@dataclass(frozen=True, slots=True)
class Recovered:
    """One operation that had died, and what had to be done about it."""

    operation: str
    kind: str
    target: str
    thawed: bool
    removed: bool
    problem: str | None = None


def thaw_abandoned(state_dir: Path) -> None:
    """Let run what dead operations left frozen; their other remains wait for :func:`recover`."""
    for record, operation in journal.abandoned(state_dir):
        if record is not None:
            _thaw(record)
        operation.release()


async def recover(*, tools: Callable[[], Tools], state_dir: Path) -> list[Recovered]:
    """Clean up after every operation that nobody works on any more. Safe to run at any time.

    What cannot be cleaned up now (its store does not answer) is kept for the next time.

    Args:
        tools: finds the programs; asked for only if there is a container to delete, so that a
            missing program keeps nothing frozen.
    """
    recovered = []
    for record, operation in journal.abandoned(state_dir):
        outcome = await _recover(record, operation, tools) if record is not None else None
        if outcome is not None:
            recovered.append(outcome)
        if outcome is not None and outcome.problem:
            operation.release()
        else:
            operation.remove()
    return recovered


async def _recover(
    record: journal.Record, operation: journal.Operation, tools: Callable[[], Tools]
) -> Recovered:
    thawed = _thaw(record)
    removed, problem = False, None
    try:
        if record.kind == "checkpoint":
            removed = await asyncio.to_thread(_discard_unfinished, record)
        else:
            removed = await _end_unfinished(record, operation, tools)
        await _open_network(record)
    except AgentError as error:
        problem = str(error)
    return Recovered(record.operation, record.kind, record.target, thawed, removed, problem)


def _thaw(record: journal.Record) -> bool:
    """The record names a freezer only if it was not frozen when the operation began."""
    if record.freezer is None:
        return False
    freezer = Freezer(Path(record.freezer), record.freezer_version)
    frozen = freezer.is_frozen()
    if frozen:
        freezer.thaw()
    return frozen


async def _open_network(record: journal.Record) -> None:
    """Of a container that runs on, which a killed CRIU may have left cut off."""
    if record.container is None or record.runc_root is None:
        return
    with contextlib.suppress(TargetNotFound):
        container = runc.load(RuncTarget(record.container, Path(record.runc_root)))
        if container.status != "stopped":
            await network.unlock(container.pid)


def _discard_unfinished(record: journal.Record) -> bool:
    """Streams without a manifest are no checkpoint; with one they are, and stay."""
    store = open_store(record.store)
    with contextlib.suppress(FileNotFoundError):
        store.size(f"{record.checkpoint_id}/{MANIFEST}")
        return False
    store.discard(record.checkpoint_id)
    return True


async def _end_unfinished(
    record: journal.Record, operation: journal.Operation, tools: Callable[[], Tools]
) -> bool:
    """A container whose restore died is complete and runs, or is dead, or something in between."""
    removed = False
    if record.container is not None and record.runc_root is not None:
        target = RuncTarget(record.container, Path(record.runc_root))
        if _runs(target):
            return False
        if removed := runc.exists(target):
            await runc.delete(tools(), target)
    elif (operation.work / RESTORE_STATS).exists():
        # CRIU writes its figures when the tree runs.
        return False
    if (root := operation.root_alive()) is not None:
        process.kill_tree(root)
        removed = True
    return removed


def _runs(target: RuncTarget) -> bool:
    try:
        return runc.load(target).status != "stopped"
    except TargetNotFound:
        return False
