"""What an executor has done, without containers: it goes on when the test says so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from agent.actions import Executor
from agent.actions.rows import Attempt
from agent.actions.worker import Outcome, Plan, Reports
from agent.errors import TargetNotFound
from agent.host.boot import Moment
from agent.messages.model import (
    ActionRequest,
    CheckpointOutcome,
    CheckpointSpec,
    RestoredMember,
    RestoreOutcome,
    RestoreSpec,
)
from agent.metrics import Metrics
from agent.operation.recovery import Recovered
from agent.report import Update
from agent.settings import Settings
from agent.targets import PodRef


class HeldWorker:
    """Acts by what a target or path contains: ``quick``, ``missing``, ``bug``; all else is held.

    What is ``finishing`` is held too, and completes although it is given up. Restores into pods are
    watched only, also by the next agent.

    Attributes:
        release: set by the test: held actions go on, or, being given up, have been rolled back.
        begun: ids of actions at work or done.
        rolled_back: ids of those that were given up, once they were put back.
    """

    def __init__(self) -> None:
        self.release = asyncio.Event()
        self.begun: list[str] = []
        self.rolling_back: list[str] = []
        self.rolled_back: list[str] = []

    async def examine(self, request: ActionRequest) -> Plan:
        """Everything is there but what is called ``missing``."""
        if "missing" in _subject(request):
            raise TargetNotFound("container", _subject(request))
        return Plan(
            keys=frozenset({_key(request)}),
            attempt=Attempt(checkpoint_id=request.action_id, store="memory://held"),
            asynchronous=isinstance(request.spec, CheckpointSpec)
            and request.spec.overrides.asynchronous is True,
            watches=_is_into_a_pod(request),
        )

    async def run(self, request: ActionRequest, plan: Plan, reports: Reports) -> Outcome:
        """Say something, wait if it is to be held, and be done."""
        self.begun.append(request.action_id)
        if plan.watches:
            await self.release.wait()
            return _restored(_subject(request))
        reports.progress(Update("dump", bytes_raw=1000, bytes_stored=500, bytes_total=2000))
        if "bug" in _subject(request):
            raise KeyError("secret-of-the-inside")
        if plan.asynchronous:
            reports.captured(_checkpointed(request, plan))
        if "quick" not in _subject(request):
            try:
                await self.release.wait()
            except asyncio.CancelledError:
                self.rolling_back.append(request.action_id)
                await self.release.wait()
                if "finishing" not in _subject(request):
                    self.rolled_back.append(request.action_id)
                    raise
        if not isinstance(request.spec, CheckpointSpec):
            return _restored(request.spec.path)
        if not plan.asynchronous:
            reports.captured(_checkpointed(request, plan))
        return _checkpointed(request, plan)

    async def clean_up(self) -> list[Recovered]:
        """There is nothing."""
        return []

    async def aftermath(
        self, request: ActionRequest, _attempt: Attempt, _begun: Moment | None
    ) -> Outcome | None:
        """Nothing was completed but what others do."""
        if not _is_into_a_pod(request):
            return None
        await self.release.wait()
        return _restored(_subject(request))

    def close(self) -> None:
        """Nothing is held."""


def _subject(request: ActionRequest) -> str:
    spec = request.spec
    return str(spec.target) if isinstance(spec, CheckpointSpec) else spec.path


def _is_into_a_pod(request: ActionRequest) -> bool:
    return isinstance(request.spec, RestoreSpec) and request.spec.pod is not None


def _key(request: ActionRequest) -> str:
    """The same for a restore into a pod and for a checkpoint of it."""
    if isinstance(request.spec, RestoreSpec) and request.spec.pod is not None:
        return str(PodRef(request.spec.pod.uid))
    return _subject(request)


def _checkpointed(request: ActionRequest, plan: Plan) -> CheckpointOutcome:
    assert isinstance(request.spec, CheckpointSpec)
    return CheckpointOutcome(
        checkpoint_id=plan.attempt.checkpoint_id,
        path=f"{plan.attempt.store}/{plan.attempt.checkpoint_id}",
        name=request.spec.name,
        frozen_seconds=0.25,
        wall_seconds=1.5,
        phases={"dump": 1.0, "commit": 0.5},
        bytes_raw=2000,
        bytes_stored=700,
        chunks=1,
        streams=4,
        codec="zstd",
        containers=("counter",),
        cuda_seconds=0.125,
        gpus=("NVIDIA H100",),
    )


def _restored(path: str) -> RestoreOutcome:
    return RestoreOutcome(
        path=path,
        wall_seconds=1.5,
        phases={"restore": 1.5},
        bytes_raw=2000,
        bytes_stored=700,
        members=(RestoredMember("counter", "counter", 4711),),
        not_restored=("volumes/data",),
    )


@asynccontextmanager
async def executing(
    state_dir: Path, concurrency: int = 2
) -> AsyncIterator[tuple[Executor, HeldWorker]]:
    """An executor that works with one; in the end all that it holds goes on."""
    settings = Settings.model_validate(
        {"state_dir": state_dir, "checkpoint": {"concurrency": concurrency}}
    )
    worker = HeldWorker()
    executor = Executor(settings, worker, Metrics("test"))
    await executor.start()
    try:
        yield executor, worker
    finally:
        worker.release.set()
        await executor.stop(0)
        await executor.close()
