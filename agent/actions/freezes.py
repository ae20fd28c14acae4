"""Pods and containers that callers keep frozen, each for a limited time.

Every freeze is a task that thaws, whatever happens: on request, at its limit, when the agent stops.
For a kill -9 there is the journal of operations: the next start thaws, and so does `thaw --all`.

What is frozen may be checkpointed, and is frozen afterwards as before; that is what freezing
several pods is for. When its limit comes in the middle of such a checkpoint it is thawed all the
same. What CRIU freezes again at the end of its dump, because it found it so, is thawed once more.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import time
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from agent.errors import (
    FreezeNotFound,
    InvalidArgument,
    ShuttingDown,
    TargetBusy,
    TargetFrozen,
    TargetNotCheckpointable,
)
from agent.host import runc
from agent.host.cgroup import Freezer
from agent.host.shield import to_the_end
from agent.logs import get_logger
from agent.operation import journal
from agent.operation.freeze import CannotFreeze, frozen
from agent.pods import find_pod
from agent.targets import PodRef, RuncTarget

# Ends that are remembered, so that a late thaw can be told that it came late.
_REMEMBERED: Final = 1000

# Seconds between two looks at a container that is being checkpointed when its time is up.
_AGAIN: Final = 0.05

# Seconds that a stop waits for checkpoints of what was frozen. Of what takes longer the journal
# knows.
_SETTLING: Final = 1.0

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Freeze:
    """What is frozen now; ``containers`` are their ids."""

    freeze_id: str
    until: datetime
    containers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Thawed:
    """What has been frozen. ``was_frozen`` is False when its time was up before."""

    frozen_seconds: float
    was_frozen: bool


@dataclass(eq=False, slots=True)
class _Held:
    """One freeze under way; freezers by the name of the lock of what they freeze."""

    freeze_id: str
    target: str
    freezers: dict[str, Freezer]
    deadline: float
    began: asyncio.Event = field(default_factory=asyncio.Event)
    released: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[Thawed] | None = None


class Freezes:
    """What callers keep frozen on this node."""

    def __init__(
        self, *, state_dir: Path, runc_roots: Sequence[Path], limit_seconds: float
    ) -> None:
        """``limit_seconds``: the longest that anybody may ask for."""
        self._state_dir, self._roots, self._limit = state_dir, tuple(runc_roots), limit_seconds
        self._held: dict[str, _Held] = {}
        self._ended: OrderedDict[str, float] = OrderedDict()
        self._settling: set[asyncio.Task[None]] = set()
        self._stopping = False

    async def freeze(self, target: PodRef | RuncTarget, limit_seconds: float) -> Freeze:
        """Stop every task of a pod or container; all of its containers, or none.

        Containers that are paused already stay so when this one is thawed. When the caller is
        cancelled, nothing stays frozen.

        Raises:
            InvalidArgument: the limit is not positive, or more than is allowed.
            TargetNotFound, PodNotFound, PodAmbiguous
            TargetNotCheckpointable: a container does not run, or does not freeze.
            TargetBusy: another call keeps it frozen, or it is being checkpointed right now.
            StoreFailed: the journal cannot be written.
            ShuttingDown
        """
        if not (math.isfinite(limit_seconds) and 0 < limit_seconds <= self._limit):
            reason = f"{limit_seconds:g} is not above 0 and at most {self._limit:g} seconds"
            raise InvalidArgument("limit", reason)
        containers = await asyncio.to_thread(self._find, target)
        if self._stopping:
            raise ShuttingDown
        until = datetime.now(UTC) + timedelta(seconds=limit_seconds)
        held = _Held(
            freeze_id=journal.new_id(),
            target=str(target),
            freezers={_lock_name(each.target): _freezer(each) for each in containers},
            deadline=time.monotonic() + limit_seconds,
        )
        if any(held.freezers.keys() & other.freezers.keys() for other in self._held.values()):
            raise TargetFrozen(str(target), os.getpid())
        self._held[held.freeze_id] = held
        held.task = task = asyncio.create_task(self._hold(held))
        beginning = asyncio.create_task(held.began.wait())
        try:
            await asyncio.wait({task, beginning}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            held.released.set()
            await to_the_end(asyncio.wait({task}))
            raise
        finally:
            beginning.cancel()
        if not held.began.is_set():
            await task
        # From here on a failure is one to thaw, and who has frozen may never come to hear of it.
        task.add_done_callback(_tell_failure)
        return Freeze(held.freeze_id, until, tuple(each.target.container for each in containers))

    async def thaw(self, freeze_id: str) -> Thawed:
        """Let it run again; returns when it does.

        Raises:
            FreezeNotFound: there was none of that id, or it ended long ago.
        """
        if (held := self._held.get(freeze_id)) is not None and held.task is not None:
            held.released.set()
            return await asyncio.shield(held.task)
        if (seconds := self._ended.get(freeze_id)) is not None:
            return Thawed(seconds, was_frozen=False)
        raise FreezeNotFound(freeze_id)

    async def stop(self) -> None:
        """Thaw everything, and take no more."""
        self._stopping = True
        held = list(self._held.values())
        for each in held:
            each.released.set()
        if tasks := [each.task for each in held if each.task is not None]:
            await asyncio.wait(tasks)
        if self._settling:
            _, busy = await asyncio.wait(self._settling, timeout=_SETTLING)
            for settling in busy:
                settling.cancel()
            await asyncio.gather(*busy, return_exceptions=True)

    def _find(self, target: PodRef | RuncTarget) -> tuple[runc.Container, ...]:
        if isinstance(target, RuncTarget):
            targets = [target]
        else:
            targets = [each.target for each in find_pod(target, self._roots).containers]
        containers = tuple(runc.load(each) for each in targets)
        for container in containers:
            if container.status == "stopped":
                raise TargetNotCheckpointable(str(container.target), "it is stopped")
            _freezer(container)
        return containers

    async def _hold(self, held: _Held) -> Thawed:
        """Freeze, wait for whatever comes first, thaw."""
        try:
            # Those that are paused already are somebody else's.
            ours = {name: each for name, each in held.freezers.items() if not each.is_frozen()}
            record = _record(held, ours.values())
            operation = await to_the_end(asyncio.to_thread(journal.begin, self._state_dir, record))
            try:
                thawed = await self._keep_frozen(held)
            finally:
                settling = asyncio.create_task(self._settle(operation, ours))
                self._settling.add(settling)
                settling.add_done_callback(self._settling.discard)
                settling.add_done_callback(_tell_failure)
        finally:
            del self._held[held.freeze_id]
        self._remember(held.freeze_id, thawed.frozen_seconds)
        if not thawed.was_frozen:
            _log.warning("thawed at its time limit", freeze_id=held.freeze_id, target=held.target)
        return thawed

    async def _keep_frozen(self, held: _Held) -> Thawed:
        with contextlib.ExitStack() as locks:
            for name in sorted(held.freezers):
                locks.enter_context(journal.exclusive(self._state_dir, name))
            try:
                async with frozen(list(held.freezers.values())) as freeze:
                    # From here on it may be checkpointed.
                    locks.close()
                    held.began.set()
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout_at(_loop_time(held.deadline)):
                            await held.released.wait()
            except CannotFreeze as error:
                raise TargetNotCheckpointable(held.target, f"it did not freeze: {error}") from error
        return Thawed(round(freeze.seconds, 6), held.released.is_set())

    async def _settle(self, operation: journal.Operation, freezers: dict[str, Freezer]) -> None:
        """Thaw again what a checkpoint leaves frozen as it has found it; then forget the freeze.

        If the agent ends before that checkpoint does, the journal still knows of it.
        """
        try:
            for name, freezer in freezers.items():
                await self._thaw_until_nobody_works_on_it(name, freezer)
        except BaseException:
            operation.release()
            raise
        await asyncio.to_thread(operation.remove)

    async def _thaw_until_nobody_works_on_it(self, name: str, freezer: Freezer) -> None:
        while True:
            with contextlib.suppress(TargetBusy), journal.exclusive(self._state_dir, name):
                if freezer.is_frozen():
                    freezer.thaw()
                return
            freezer.thaw()
            await asyncio.sleep(_AGAIN)

    def _remember(self, freeze_id: str, seconds: float) -> None:
        self._ended[freeze_id] = seconds
        if len(self._ended) > _REMEMBERED:
            self._ended.popitem(last=False)


def _freezer(container: runc.Container) -> Freezer:
    if container.freezer is None:
        raise TargetNotCheckpointable(str(container.target), "it has no freezer cgroup")
    return container.freezer


def _tell_failure(task: asyncio.Task[Thawed] | asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()):
        _log.error("not thawed; `thaw --all` tries again", exc_info=error)


def _lock_name(target: RuncTarget) -> str:
    """The same as a checkpoint's of it."""
    return f"{target} under {target.root.resolve()}"


def _record(held: _Held, ours: Iterable[Freezer]) -> journal.Record:
    return journal.Record(
        kind="freeze",
        operation=held.freeze_id,
        checkpoint_id="",
        store="",
        target=held.target,
        affected=tuple(
            journal.Affected(freezer=str(freezer.path), freezer_version=freezer.version)
            for freezer in ours
        ),
    )


def _loop_time(monotonic: float) -> float:
    """The event loop's clock may begin elsewhere."""
    return asyncio.get_running_loop().time() + monotonic - time.monotonic()
