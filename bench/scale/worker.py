"""What would be done to containers, left out: every pod is there, every checkpoint succeeds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from agent.actions.rows import Attempt
from agent.actions.worker import Outcome, Plan, Reports
from agent.errors import PodNotFound
from agent.host.boot import Moment
from agent.messages.model import ActionRequest, CheckpointOutcome, CheckpointSpec
from agent.operation.recovery import Recovered
from agent.targets import PodRef
from bench.scale.pods import CONTAINERS

STORE = "s3://checkpoints/scale"


class QuickWorker:
    """Takes ``seconds`` for each action.

    Args:
        began: told the id of each action that is begun.
    """

    def __init__(self, seconds: float, began: Callable[[str], None]) -> None:
        self._seconds, self._began = seconds, began

    async def examine(self, request: ActionRequest) -> Plan:
        """One pod, which is there."""
        if not isinstance(request.spec, CheckpointSpec):
            raise PodNotFound(request.spec.path)
        target = request.spec.target
        if not isinstance(target, PodRef):
            raise PodNotFound(str(target))
        attempt = Attempt(checkpoint_id=request.action_id, store=STORE)
        return Plan(frozenset({target.uid}), attempt, target)

    async def run(self, request: ActionRequest, plan: Plan, reports: Reports) -> Outcome:
        """As a pod of two small containers does."""
        self._began(request.action_id)
        await asyncio.sleep(self._seconds / 2)
        captured = _captured(request.action_id, plan)
        reports.captured(captured)
        await asyncio.sleep(self._seconds / 2)
        return replace(captured, bytes_stored=61_341_712, chunks=164)

    async def clean_up(self) -> list[Recovered]:
        """Nothing is ever frozen."""
        return []

    async def aftermath(
        self, _request: ActionRequest, _attempt: Attempt, _begun: Moment | None
    ) -> Outcome | None:
        """What was under way when an agent died was not completed."""
        return None

    def close(self) -> None:
        """It holds nothing."""


def _captured(action_id: str, plan: Plan) -> CheckpointOutcome:
    return CheckpointOutcome(
        checkpoint_id=action_id,
        path=f"{plan.attempt.store}/{action_id}",
        name=None,
        frozen_seconds=0.312,
        wall_seconds=0.871,
        phases={"freeze": 0.004, "dump": 0.308, "drain": 0.211, "commit": 0.348},
        bytes_raw=87_412_736,
        streams=4,
        codec="zstd",
        containers=CONTAINERS,
        platform="linux/amd64",
    )
