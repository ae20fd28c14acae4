"""The Actions API over HTTP, with a real broker, a real database, and a node's real event code."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.pb.checkpoint_agent.v1 import actions_pb2, inventory_pb2
from tests.api_servers import Api, api_in, is_action_id, postgres_settings
from tests.event_agents import Agent, agent_on, eventually
from tests.servers.nats import NatsServer
from tests.servers.postgres import PostgresServer

UID = str(uuid.uuid5(uuid.NAMESPACE_DNS, "web"))


@pytest.fixture(params=["sqlite", "postgresql"])
def api(request: pytest.FixtureRequest, broker: NatsServer, tmp_path: Path) -> Iterator[Api]:
    """The API on each database."""
    tables, env = None, None
    if request.param == "postgresql":
        server: PostgresServer = request.getfixturevalue("postgres")
        url = request.getfixturevalue("postgres_database")
        tables, env = postgres_settings(url, server.password)
    with api_in(tmp_path, broker.url, tables, env) as made:
        yield made


@dataclass
class Node:
    """A node with a pod, and the API in front of it."""

    api: Api
    agent: Agent

    async def sees_pod(self) -> None:
        """Wait until the API knows the pod."""

        def known() -> bool:
            answer = self.api.get("/v2/nodes")
            return answer.status == 200 and any(
                pod["uid"] == UID for node in answer.json() for pod in node["pods"]
            )

        await eventually(known, "the API seeing the pod")


def pod(uid: str, name: str, namespace: str = "default") -> inventory_pb2.Pod:
    """A pod of one container."""
    return inventory_pb2.Pod(
        ref=actions_pb2.PodRef(uid=uid, namespace=namespace, name=name),
        runtime="containerd",
        containers=[inventory_pb2.PodContainer(name="app", id="c1", status="running")],
    )


@pytest.fixture
async def node(api: Api, broker: NatsServer, tmp_path: Path) -> AsyncIterator[Node]:
    """One node whose actions end at once."""
    async with agent_on(broker, tmp_path) as agent:
        agent.pods.append(pod(UID, "web"))
        made = Node(api, agent)
        yield made


async def test_smoke(node: Node) -> None:
    await asyncio.to_thread(node.api.wait_ready)
    await node.sees_pod()
    answer = await asyncio.to_thread(node.api.post, "/v2/checkpoint/pod", {"pod_id": UID})
    assert answer.status == 200, answer.text
    assert is_action_id(answer.text)
    done = await asyncio.to_thread(node.api.wait_state, answer.text, "ready", "error")
    assert done["status"] == "ready", json.dumps(done)
