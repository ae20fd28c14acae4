"""The Actions API's side of a broker, in tests."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from agent.events import Batch, Control, Position, StoredEvent
from agent.messages.model import ActionRequest, CheckpointSpec
from agent.settings import Nats
from agent.targets import PodRef
from tests.servers.nats import NatsServer
from tests.waiting import eventually_async

START = Position("", 0)


@contextlib.asynccontextmanager
async def controlling(server: NatsServer, **settings: object) -> AsyncIterator[Control]:
    """One whose session is being made in the background, with these settings of [nats]."""
    control = Control(Nats.model_validate({"url": server.url} | settings), "api")
    task = asyncio.create_task(control.run())
    try:
        yield control
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@contextlib.asynccontextmanager
async def control_on(server: NatsServer, **settings: object) -> AsyncIterator[Control]:
    """One that is ready."""
    async with controlling(server, **settings) as control:
        await is_ready(control)
        yield control


async def is_ready(control: Control) -> None:
    """Wait until it is."""
    await eventually_async(lambda: control.ready, "a ready control")


def checkpoint(action_id: str, uid: str = "pod-1") -> ActionRequest:
    """A request for one."""
    return ActionRequest(action_id, CheckpointSpec(PodRef(uid=uid)))


async def read_all(control: Control, position: Position = START, limit: int = 500) -> Batch:
    """Everything after a position, in as many reads as it takes."""
    events: list[StoredEvent] = []
    while (batch := await control.read(position, limit, 0.0)).events:
        position = batch.position
        events += batch.events
    return Batch(batch.position, tuple(events), batch.at_end)
