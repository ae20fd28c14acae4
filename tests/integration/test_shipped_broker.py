"""The broker of deploy/kubernetes: what its two users may do, and what they may not."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import nats
import pytest
from nats.aio.client import Client

from tests.cli_process import ROOT
from tests.controls import START, checkpoint, control_on
from tests.event_agents import agent_on
from tests.servers.nats import NatsServer, nats_server
from tests.waiting import eventually_async

SHIPPED = ROOT / "deploy" / "kubernetes" / "components" / "nats" / "nats.conf"
# "Publish Violation", "Subscription Violation"
REFUSED = "Violation"


@dataclass(frozen=True, slots=True)
class Broker:
    """The server, and a file with the password of both users."""

    server: NatsServer
    password: Path

    @property
    def log(self) -> str:
        """What the server has said, with one kind of quotes."""
        return self.server.log.replace("\\", "")


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    text = SHIPPED.read_text()
    users = text[text.index("authorization {") :]
    for variable in ("$AGENT_PASSWORD", "$API_PASSWORD"):
        users = users.replace(variable, "secret")
    file = tmp_path / "password"
    file.write_text("secret")
    with nats_server(tmp_path, text=users) as server:
        yield Broker(server, file)


async def test_they_may_do_their_work(broker: Broker, tmp_path: Path) -> None:
    server, file = broker.server, broker.password
    async with (
        control_on(server, user="api", password_file=file) as control,
        agent_on(
            server,
            tmp_path,
            node={"cluster": "default", "name": "node-a"},
            nats={"user": "agent", "password_file": str(file)},
        ) as agent,
    ):
        await agent.is_ready()
        await control.hand_over("default", "node-a", checkpoint("a1"))
        await agent.executor.outbox.published("a1")
        await eventually_async(lambda: agent.engine.runs == ["a1"], "the action")
        await control.cancel("default", "node-a", "a1")
        batch = await control.read(START, 10, 10.0)
        assert batch.events
        await eventually_async(
            lambda: [each.node for each in control.nodes.live()] == ["node-a"], "the node"
        )
    assert REFUSED not in server.log


@pytest.mark.parametrize(
    ("user", "subject"),
    [
        # A node's password does not open the other nodes, nor what was said before.
        ("agent", "actions.default.node-b.checkpoint"),
        ("agent", "$JS.API.STREAM.DELETE.ACTIONS"),
        ("agent", "$JS.API.STREAM.PURGE.ACTION_EVENTS"),
        ("agent", "$JS.API.STREAM.UPDATE.ACTIONS"),
        ("agent", "$KV.checkpoint-inventory.other.node-a"),
        ("api", "action-events.default.node-a"),
        ("api", "$KV.checkpoint-inventory.default.node-a"),
        ("api", "$JS.API.STREAM.DELETE.ACTION_EVENTS"),
    ],
)
async def test_they_may_do_nothing_else(broker: Broker, user: str, subject: str) -> None:
    async with connected(broker, user) as client:
        await client.publish(subject, b"{}")
        await eventually_async(
            lambda: f'Publish {REFUSED} - Subject "{subject}"' in broker.log, "a refusal"
        )


async def test_a_node_does_not_hear_what_others_are_told(broker: Broker) -> None:
    async with connected(broker, "agent") as client:
        await client.subscribe("actions.>")
        await eventually_async(
            lambda: f'Subscription {REFUSED} - Subject "actions.>"' in broker.log, "one"
        )


@contextlib.asynccontextmanager
async def connected(broker: Broker, user: str) -> AsyncIterator[Client]:
    """What speaks as this user."""
    client = await nats.connect(broker.server.url, user=user, password="secret")
    try:
        yield client
    finally:
        await client.close()
