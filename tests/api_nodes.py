"""Nodes for an API to be tried with: the real event code, and pods that are made up."""

from __future__ import annotations

import contextlib
import itertools
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from anyio.from_thread import BlockingPortal, start_blocking_portal

from agent.actions.rows import Attempt
from agent.actions.worker import Outcome, Plan, Reports
from agent.messages.model import ActionRequest, CheckpointOutcome, RestoreOutcome, RestoreSpec
from agent.pb.checkpoint_agent.v1 import actions_pb2, inventory_pb2
from tests.event_agents import Agent, ScriptedEngine, agent_on
from tests.servers.nats import NatsServer

# Of every checkpoint, in the order in which they are told.
PHASES: Final = {"freeze": 0.01, "dump": 0.1, "store": 0.05, "commit": 0.02}

_NUMBERS = itertools.count()


@dataclass
class NodeEngine(ScriptedEngine):
    """Restores as well, and keeps what it was asked."""

    asked: dict[str, ActionRequest] = field(default_factory=dict)
    containers: tuple[str, ...] = ("app",)

    async def examine(self, request: ActionRequest) -> Plan:
        if isinstance(request.spec, RestoreSpec):
            return Plan(frozenset({request.action_id}), Attempt(request.action_id, "memory:"))
        return await super().examine(request)

    async def run(self, request: ActionRequest, plan: Plan, reports: Reports) -> Outcome:
        self.asked[request.action_id] = request
        if isinstance(request.spec, RestoreSpec):
            self.runs.append(request.action_id)
            await self.gate.wait()
            return RestoreOutcome(request.spec.path, 0.2, {"prepare": 0.1, "restore": 0.1}, 10, 5)
        outcome = await super().run(request, plan, reports)
        assert isinstance(outcome, CheckpointOutcome)
        return replace(
            outcome,
            path=path_of(request.action_id),
            phases=PHASES,
            bytes_raw=4096,
            bytes_stored=1024,
            containers=self.containers,
            platform="debian-13",
        )


@dataclass(frozen=True, slots=True)
class Node:
    """One that runs in a thread of its own."""

    name: str
    agent: Agent
    engine: NodeEngine
    _portal: BlockingPortal

    def let_go(self) -> None:
        """Open the gate: what waits behind it ends."""
        self._portal.call(self.engine.gate.set)

    def die(self) -> None:
        """Go as kill -9 does."""
        self._portal.call(self.agent.die)


@contextlib.contextmanager
def node_on(
    broker: NatsServer,
    folder: Path,
    *pods: inventory_pb2.Pod,
    name: str | None = None,
    open_gate: bool = True,
    **tables: dict[str, Any],
) -> Iterator[Node]:
    """A node with these pods; no other has had its name, unless it is given."""
    name = name or f"node-{next(_NUMBERS)}"
    engine = NodeEngine()
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(
            agent_on(broker, folder, name, open_gate=open_gate, engine=engine, pods=pods, **tables)
        ) as agent,
    ):
        yield Node(agent.settings.node.name, agent, engine, portal)


def pod(
    name: str = "web",
    namespace: str = "default",
    uid: str | None = None,
    containers: Sequence[tuple[str, str]] = (("app", ""),),
) -> inventory_pb2.Pod:
    """A pod that nobody else has, unless its UID is given.

    Args:
        containers: names, and what their checkpoints are called; "" is nothing.
    """
    return inventory_pb2.Pod(
        ref=actions_pb2.PodRef(uid=uid or str(uuid.uuid4()), namespace=namespace, name=name),
        runtime="containerd",
        containers=[
            inventory_pb2.PodContainer(
                name=container, id=f"id-{container}", status="running", checkpoint_name=called
            )
            for container, called in containers
        ],
    )


def path_of(action_id: str) -> str:
    """Where an action's checkpoint is, as its node says."""
    return f"memory:/{action_id}"
