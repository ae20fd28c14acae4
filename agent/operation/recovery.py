"""After a kill -9: what dead operations left behind is thawed, removed and forgotten.

CRIU and runc roll back by themselves when the agent dies, because they lose its sockets. This is
for when they died too, for what is half-written in the store, and for the working files.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from agent.config import Tools
from agent.errors import AgentError, TargetNotFound
from agent.gpu import GpuProcess, resume
from agent.host import connections, network, process, runc
from agent.host.cgroup import Freezer
from agent.host.cuda import Cuda, CudaFailed
from agent.host.repair import end_repair
from agent.logs import get_logger
from agent.manifest import MANIFEST
from agent.operation import journal
from agent.operation.attempt import ROLLBACK_TIMEOUT
from agent.operation.layers import recover_layer
from agent.operation.record import share, undone
from agent.operation.remains import is_left_by
from agent.operation.workplace import Workplace
from agent.store import open_store
from agent.targets import RuncTarget

RESTORE_STATS = "stats-restore"

# Seconds between two looks at orphans, which need milliseconds when all is well.
_ORPHAN_SECONDS = 0.05

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Recovered:
    """One operation that had died, and what had to be done about it."""

    operation: str
    kind: str
    target: str
    thawed: bool
    removed: bool
    problem: str | None = None


def thaw_abandoned(state_dir: Path) -> set[str]:
    """Let run what dead agents left frozen; their other remains wait for :func:`recover`.

    Also where an orphan still works on it, which may hang for ever. One that is rolling back may
    freeze it once more at its end: then the lock it holds is free, and the next one who looks thaws
    it again. Returns the operations that had something frozen.
    """
    thawed = set()
    for record in journal.orphaned(state_dir):
        if _is_worked_on(record, state_dir):
            continue
        with contextlib.suppress(OSError):  # recover() tells of it
            if _thaw(record, state_dir):
                thawed.add(record.operation)
    return thawed


async def recover(*, tools: Callable[[], Tools], state_dir: Path) -> list[Recovered]:
    """Clean up after every operation that nobody works on any more. Safe to run at any time.

    What cannot be cleaned up now (its store does not answer) is kept for the next time, and so is
    what another operation works on by now.

    Args:
        tools: finds the programs; asked for only if there is a container to delete, so that a
            missing program keeps nothing frozen.
    """
    recovered = []
    thawed = await asyncio.to_thread(thaw_abandoned, state_dir)
    left = journal.abandoned(state_dir)
    try:
        while left:
            record, operation = left[0]
            outcome, busy = None, record is not None and _is_worked_on(record, state_dir)
            if record is not None and not busy:
                outcome = await _recover(
                    record, operation, tools, state_dir, record.operation in thawed
                )
                recovered.append(outcome)
            del left[0]
            if busy or (outcome is not None and outcome.problem):
                operation.release()
            else:
                operation.remove()
    finally:
        # Cancelled: whoever looks next finds them again.
        for _, operation in left:
            operation.release()
    return recovered


async def recover_all(
    *, tools: Callable[[], Tools], state_dir: Path, patience: float = ROLLBACK_TIMEOUT
) -> list[Recovered]:
    """As :func:`recover`, and for what orphans still work on as soon as they have ended.

    A CRIU whose agent was killed puts back what it found, and a pod it found frozen.

    Args:
        patience: seconds to wait for them; what is not over then is reported as a problem.
    """
    found: dict[str, Recovered] = {}
    deadline = time.monotonic() + patience
    while True:
        # Looked at first: who ends between the two looks is recovered in this round.
        orphans = await asyncio.to_thread(journal.worked_on, state_dir)
        for recovered in await recover(tools=tools, state_dir=state_dir):
            found[recovered.operation] = recovered
        if not orphans:
            return list(found.values())
        if time.monotonic() > deadline:
            break
        await asyncio.sleep(_ORPHAN_SECONDS)
    for left in orphans:
        problem = "its agent is dead, and runc still works on it"
        unfinished = Recovered(left.operation, left.kind, left.target, False, False, problem)
        found.setdefault(left.operation, unfinished)
    return list(found.values())


async def _recover(
    record: journal.Record,
    operation: journal.Operation,
    tools: Callable[[], Tools],
    state_dir: Path,
    thawed: bool,
) -> Recovered:
    removed, held, problems = False, list[Exception](), list[Exception]()
    # None of them waits for another one's failure. What holds somebody up goes before the store,
    # which may not answer.
    with _noted(held):
        thawed = _thaw(record, state_dir) or thawed
    with _noted(problems):
        await _open_networks(record, running=True)
    with _noted(held):
        await _resume_gpus(record)
    if not held:
        await asyncio.to_thread(_note_undone, record, operation)
    with _noted(problems):
        # A deletion that was begun leaves the same: streams without a manifest.
        if record.kind in ("checkpoint", "delete"):
            removed = await asyncio.to_thread(_discard_unfinished, record)
        elif record.kind == "restore":
            removed = await _end_unfinished(record, operation, tools)
        if removed or record.kind == "restore":
            await _open_networks(record, running=False)
    problem = "; ".join(map(str, held + problems)) or None
    return Recovered(record.operation, record.kind, record.target, thawed, removed, problem)


@contextlib.contextmanager
def _noted(problems: list[Exception]) -> Iterator[None]:
    try:
        yield
    except (AgentError, CudaFailed, OSError) as error:
        problems.append(error)


def _note_undone(record: journal.Record, operation: journal.Operation) -> None:
    """The rest may be tried for days. Who pauses the container meanwhile wants it to stay so."""
    left = undone(record)
    if left != record:
        with contextlib.suppress(OSError):  # a full disk keeps no streams either
            operation.rewrite(left)


def _is_worked_on(record: journal.Record, state_dir: Path) -> bool:
    """Whether a living agent works on any of it again, whose freeze is not to be broken."""
    return any(share(record, live) for live in journal.owned(state_dir))


def _thaw(record: journal.Record, state_dir: Path) -> bool:
    """Whether anything was frozen. One that cannot be thawed keeps no other frozen."""
    thawed, failure = False, None
    for affected in record.affected:
        freezer = _freezer(affected)
        try:
            try:
                # Before anybody can use them. A CRIU that still lives does it once more.
                if not affected.repaired:
                    end_repair(freezer.pids() if freezer else _tree(affected))
            finally:
                # Looked at in this order: who has frozen it since then is in the journal.
                if freezer and freezer.is_frozen() and not _is_worked_on(record, state_dir):
                    freezer.thaw()
                    thawed = True
        except OSError as error:
            failure = error
    if failure is not None:
        raise failure
    return thawed


def _freezer(affected: journal.Affected) -> Freezer | None:
    """The one to thaw: none of a process tree, and of what its owner had paused."""
    if affected.freezer is None:
        return None
    return Freezer(Path(affected.freezer), affected.freezer_version)


def _tree(affected: journal.Affected) -> list[int]:
    """The processes, where no cgroup has them; none when they are gone."""
    if affected.root is None or not process.is_alive(*affected.root):
        return []
    return process.tree(affected.root[0])


async def _resume_gpus(record: journal.Record) -> None:
    """Bring processes back onto their GPUs; those that run again are frozen no more."""
    affected = [each for one in record.affected for each in one.gpu_processes]
    if affected:
        async with contextlib.aclosing(Cuda()) as cuda:
            await resume(cuda, [GpuProcess(pid, started) for pid, started in affected])


async def _open_networks(record: journal.Record, *, running: bool) -> None:
    """What a killed CRIU may have left locked: of those that run, or of all others.

    One that was stopped, and whose checkpoint exists, stays cut off: its connections are to be
    taken up again by a restore.
    """
    for affected in record.affected:
        target = _target(affected)
        if target is not None and _runs(target) is not running:
            continue
        if affected.network is not None:
            await network.unlock(Path(affected.network))
        elif running:
            if target is not None:
                await network.unlock(network.of_process(runc.load(target).pid))
            if affected.root is not None:
                await connections.unlock(*affected.root)


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
    """A container whose restore died is complete and runs, or is dead, or something in between.

    Of several all run, or none of them stays. What somebody else has made since then does.
    """
    places = operation.found_workplaces()
    if record.affected and all(
        _is_complete(affected, place)
        for affected, place in zip(record.affected, places, strict=False)
    ):
        return False
    removed = False
    for affected, place in zip(record.affected, places, strict=False):
        target = None if affected.of_engine else _target(affected)
        if target is None or not runc.exists(target):
            continue
        if await is_left_by(place, target):
            await runc.delete(tools(), target)
            removed = True
        else:
            _log.warning("left alone: not of the restore that died", container=target.container)
    for place in places:
        if (root := place.root_alive()) is not None:
            process.kill_tree(root)
            removed = True
        removed = await recover_layer(place, record.target) or removed
    return removed


def _is_complete(affected: journal.Affected, place: Workplace) -> bool:
    if place.is_waiting:
        return False  # it was never brought back onto its GPUs
    target = _target(affected)
    # For a tree without a container: CRIU writes its figures when it runs.
    return (place.work / RESTORE_STATS).exists() if target is None else _runs(target)


def _target(affected: journal.Affected) -> RuncTarget | None:
    if affected.container is None or affected.runc_root is None:
        return None
    return RuncTarget(affected.container, Path(affected.runc_root))


def _runs(target: RuncTarget) -> bool:
    try:
        return runc.load(target).status != "stopped"
    except TargetNotFound:
        return False
