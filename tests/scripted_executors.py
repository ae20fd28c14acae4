"""Executors whose worker is scripted, and what they have said."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from agent.actions.executor import Executor
from agent.actions.worker import Reports
from agent.messages.events import event_from
from agent.messages.model import Event, State
from agent.messages.requests import from_json
from agent.metrics import Metrics
from agent.pb.checkpoint_agent.v1 import actions_pb2 as pb
from agent.settings import Settings
from tests.fakes.scripted_worker import Script, ScriptedWorker


def settings(directory: Path, **checkpoint: int) -> Settings:
    """A node with a broker, whatever becomes of that."""
    return Settings.model_validate(
        {"state_dir": directory, "checkpoint": checkpoint, "nats": {"url": "nats://127.0.0.1:1"}}
    )


@asynccontextmanager
async def executor(
    directory: Path, worker: ScriptedWorker, *, grace: float = 0.0, **checkpoint: int
) -> AsyncIterator[Executor]:
    """One from its start to its stop."""
    made = Executor(settings(directory, **checkpoint), worker, Metrics("test"))
    await made.start()
    try:
        yield made
    finally:
        await made.stop(grace)
        await made.close()


async def sent(made: Executor) -> list[Event]:
    """What waits for the broker."""
    rows = await made.outbox.next(10_000)
    return [event_from(from_json(row.payload, pb.ActionEvent())) for row in rows]


async def states(made: Executor, action_id: str = "a") -> list[State]:
    return [each.state for each in await sent(made) if each.action_id == action_id]


def held() -> tuple[Script, asyncio.Event]:
    """A script that waits until the event is set."""
    gate = asyncio.Event()

    async def script(_reports: Reports) -> None:
        await gate.wait()

    return script, gate


def raising(error: BaseException) -> Script:
    async def script(_reports: Reports) -> None:
        raise error

    return script
