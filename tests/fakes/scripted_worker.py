"""A worker that does what a test tells it to, for actions that stand for no container."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from agent.actions.rows import Attempt
from agent.actions.worker import Outcome, Plan, Reports
from agent.host.boot import Moment
from agent.messages.model import (
    ActionRequest,
    CheckpointOutcome,
    CheckpointSpec,
    RestoreOutcome,
)
from agent.operation.recovery import Recovered
from agent.targets import RuncTarget

# What an action does between its beginning and its outcome. By default nothing.
Script = Callable[[Reports], Awaitable[None]]


async def nothing(_reports: Reports) -> None:
    """Done at once."""


def request(action_id: str, container: str | None = None) -> ActionRequest:
    """A checkpoint of a container that need not exist."""
    return ActionRequest(action_id, CheckpointSpec(RuncTarget(container or action_id)))


def outcome(action_id: str) -> CheckpointOutcome:
    """Of an action's checkpoint."""
    return CheckpointOutcome(
        checkpoint_id=f"id-{action_id}",
        path=f"file:///store/id-{action_id}",
        name=None,
        frozen_seconds=0.25,
        wall_seconds=1.0,
        phases={"dump": 1.0},
        bytes_raw=10,
        bytes_stored=5,
    )


@dataclass(eq=False)
class ScriptedWorker:
    """Runs scripts by the action's id, and keeps account of who works on what.

    Attributes:
        refused: raised by examine.
        left: what ``aftermath`` answers or raises.
        asynchronous: ids of actions that give their slot back when they are captured.
        watching: ids of actions whose work others do.
    """

    scripts: dict[str, Script] = field(default_factory=dict)
    refused: dict[str, Exception] = field(default_factory=dict)
    left: dict[str, list[Outcome | Exception | None]] = field(default_factory=dict)
    asynchronous: set[str] = field(default_factory=set)
    watching: set[str] = field(default_factory=set)
    working: dict[str, str] = field(default_factory=dict)
    most: int = 0
    collisions: list[str] = field(default_factory=list)
    began: list[str] = field(default_factory=list)

    async def examine(self, request: ActionRequest) -> Plan:
        await asyncio.sleep(0)
        if (error := self.refused.get(request.action_id)) is not None:
            raise error
        return Plan(
            keys=frozenset({_key(request)}),
            attempt=Attempt(f"id-{request.action_id}", "file:///store"),
            asynchronous=request.action_id in self.asynchronous,
            watches=request.action_id in self.watching,
        )

    async def run(self, request: ActionRequest, plan: Plan, reports: Reports) -> Outcome:
        action_id, (key,) = request.action_id, plan.keys
        if key in self.working:
            self.collisions.append(key)
        self.working[key] = action_id
        self.began.append(action_id)
        self.most = max(self.most, len(self.working))
        try:
            await self.scripts.get(action_id, nothing)(reports)
        finally:
            del self.working[key]
        return outcome(action_id)

    async def clean_up(self) -> list[Recovered]:
        return []

    async def aftermath(
        self, request: ActionRequest, attempt: Attempt, begun: Moment | None
    ) -> CheckpointOutcome | RestoreOutcome | None:
        found = self.left[request.action_id].pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    def close(self) -> None:
        assert not self.working


def _key(request: ActionRequest) -> str:
    assert isinstance(request.spec, CheckpointSpec)
    return str(request.spec.target)
