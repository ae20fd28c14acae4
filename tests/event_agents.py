"""A node's events and actions on a real broker, with an engine that a test scripts.

Everything is real but what would be done to containers: journal, executor and agent.events.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nats
from nats.js import JetStreamContext
from nats.js.errors import NotFoundError

from agent.actions import Executor
from agent.actions.rows import Attempt
from agent.actions.worker import Outcome, Plan, Reports
from agent.errors import PodNotFound
from agent.events import Events
from agent.messages.model import ActionRequest, CheckpointOutcome, CheckpointSpec
from agent.metrics import Metrics
from agent.operation.recovery import Recovered
from agent.pb.checkpoint_agent.v1 import inventory_pb2 as pb
from agent.settings import Settings
from agent.targets import PodRef
from tests.servers.nats import NatsServer
from tests.servers.nats_client import PlainClient
from tests.waiting import eventually_async

# Subjects of actions for the node that tests mean when they name none.
HERE = "actions.test.node-a"


@dataclass
class ScriptedEngine:
    """Pods whose UID begins with ``unknown`` are not there; all others are checkpointed at once.

    ``gate`` is where an action waits after its capture, ``runs`` the ids of those that began.
    """

    runs: list[str] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    async def examine(self, request: ActionRequest) -> Plan:
        pod = _pod(request)
        if pod.uid.startswith("unknown"):
            raise PodNotFound(pod.uid)
        attempt = Attempt(store="memory:", checkpoint_id=request.action_id)
        return Plan(frozenset({pod.uid}), attempt, pod)

    async def run(self, request: ActionRequest, plan: Plan, reports: Reports) -> Outcome:
        self.runs.append(request.action_id)
        outcome = CheckpointOutcome(request.action_id, "memory:", None, 0.1, 0.2, {}, 1)
        reports.captured(outcome)
        await self.gate.wait()
        return outcome

    async def clean_up(self) -> list[Recovered]:
        return []

    async def aftermath(self, *_: object) -> Outcome | None:
        return None

    def close(self) -> None:
        """It holds nothing."""


def _pod(request: ActionRequest) -> PodRef:
    assert isinstance(request.spec, CheckpointSpec)
    assert isinstance(request.spec.target, PodRef)
    return request.spec.target


@dataclass
class Agent:
    """One node's."""

    settings: Settings
    engine: ScriptedEngine
    executor: Executor
    events: Events
    pods: list[pb.Pod]
    task: asyncio.Task[None]

    async def is_ready(self) -> None:
        """Wait until it has a broker."""
        await eventually_async(lambda: self.events.ready, "an agent with a broker")

    async def die(self) -> None:
        """Go as kill -9 does: nothing is withdrawn or flushed."""
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    async def pause(self) -> None:
        """Take nothing more, unless it has died."""
        if not self.task.done():
            await self.events.pause()

    async def end(self) -> None:
        """Tell what there is to tell, unless it has died; nothing of it runs on return."""
        try:
            if not self.task.done():
                await self.events.stop(1.0)
        except BaseException:
            self.task.cancel()
            raise
        finally:
            await asyncio.gather(self.task, return_exceptions=True)


@contextlib.asynccontextmanager
async def agent_on(
    server: NatsServer,
    folder: Path,
    name: str = "node-a",
    *,
    open_gate: bool = True,
    engine: ScriptedEngine | None = None,
    pods: Sequence[pb.Pod] = (),
    **tables: dict[str, Any],
) -> AsyncIterator[Agent]:
    """An agent whose journal is in ``folder``; ``tables`` go into its settings."""
    nats_table = {"url": server.url, **tables.pop("nats", {})}
    state_dir = folder / name
    state_dir.mkdir(exist_ok=True)
    given = {
        "state_dir": str(state_dir),
        "node": {"cluster": "test", "name": name},
        "nats": nats_table,
        "pods": {"runc_roots": [str(state_dir)]},
        **tables,
    }
    settings = Settings.model_validate_json(json.dumps(given))
    engine = engine or ScriptedEngine()
    if open_gate:
        engine.gate.set()
    executor = Executor(settings, engine, Metrics("test"))
    found = list(pods)
    node = settings.node
    events = Events(
        settings,
        executor,
        lambda: pb.NodeInfo(cluster=node.cluster, node=node.name, pods=found),
    )
    # The last one entered goes first, and one that fails at its end keeps no other from it.
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(executor.close)
        await executor.start()
        task = asyncio.create_task(events.run())
        agent = Agent(settings, engine, executor, events, found, task)
        stack.push_async_callback(agent.end)
        stack.push_async_callback(executor.stop, 1.0)
        stack.callback(engine.gate.set)
        stack.push_async_callback(agent.pause)
        yield agent


@contextlib.asynccontextmanager
async def looking(
    server: NatsServer, user: str | None = None, password: str | None = None
) -> AsyncIterator[JetStreamContext]:
    """A client of the tests' own; outlives restarts of the broker."""
    client = await nats.connect(
        server.url,
        max_reconnect_attempts=-1,
        reconnect_time_wait=0,
        user=user,
        password=password,
    )
    try:
        yield client.jetstream()
    finally:
        await client.close()


def publish(server: NatsServer, payload: bytes, subject: str = f"{HERE}.checkpoint") -> None:
    """Publish with nothing but the text protocol."""
    with PlainClient(server.port) as client:
        client.publish(subject, payload)


def request(action_id: str, uid: str = "pod-1") -> bytes:
    """A message that asks for a checkpoint."""
    return json.dumps({"actionId": action_id, "checkpoint": {"pod": {"uid": uid}}}).encode()


@dataclass(frozen=True)
class Stored:
    """One message of ACTION_EVENTS."""

    subject: str
    message_id: str
    event: dict[str, Any]

    @property
    def state(self) -> str:
        return str(self.event["state"])


async def stored(js: JetStreamContext) -> list[Stored]:
    """Everything in ACTION_EVENTS, in order."""
    found: list[Stored] = []
    try:
        last = (await js.stream_info("ACTION_EVENTS")).state.last_seq
    except NotFoundError:
        return found
    for sequence in range(1, last + 1):
        message = await js.get_msg("ACTION_EVENTS", sequence)
        assert message.subject is not None
        assert message.data is not None
        headers = message.headers or {}
        found.append(
            Stored(message.subject, headers.get("Nats-Msg-Id", ""), json.loads(message.data))
        )
    return found


async def events_of(
    js: JetStreamContext, action_id: str, last: str, times: int = 1
) -> list[Stored]:
    """An action's events, once so many of them are of state ``last``."""
    found: list[Stored] = []

    async def ended() -> bool:
        found[:] = [each for each in await stored(js) if each.event["actionId"] == action_id]
        return [each.state for each in found].count(last) >= times

    await eventually_async(ended, f"{times} events {last} of {action_id}")
    return found


async def waiting_in(js: JetStreamContext, stream: str = "ACTIONS") -> int:
    """How many messages a stream holds; -1 where there is none."""
    try:
        return (await js.stream_info(stream)).state.messages
    except NotFoundError:
        return -1


async def all_answered(js: JetStreamContext) -> None:
    """Wait until every action was acknowledged."""

    async def none_left() -> bool:
        return await waiting_in(js) == 0

    await eventually_async(none_left, "all actions acknowledged")
