"""The whole daemon at a real broker: an action comes as a message, its states go out as such."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.js import JetStreamContext

from bench.bundle import COUNTER, memory
from bench.reports import wait_until
from tests.cli_process import only_document, run_cli
from tests.daemons import Daemon, Tables, daemon_in
from tests.integration.aftermath import assert_unharmed
from tests.integration.lab import Lab
from tests.servers.nats import NatsServer, nats_server

pytestmark = [pytest.mark.root, pytest.mark.criu]

SECONDS = 50


@pytest.fixture
def broker() -> Iterator[NatsServer]:
    """A server with JetStream."""
    directory = Path(tempfile.mkdtemp(prefix="nats-"))
    try:
        with nats_server(directory) as server:
            yield server
    finally:
        shutil.rmtree(directory)


@asynccontextmanager
async def stream(broker: NatsServer) -> AsyncIterator[JetStreamContext]:
    """A client of it."""
    client = await nats.connect(broker.url)
    try:
        yield client.jetstream()
    finally:
        await client.close()


@pytest.fixture
def daemon(lab: Lab, broker: NatsServer) -> Iterator[Daemon]:
    """Ready, with the broker set up."""
    tables: Tables = {
        "nats": {"url": broker.url},
        "pods": {"runc_roots": [str(lab.runc.path)]},
    }
    with daemon_in(lab.directory, tables) as made:
        made.start()
        made.wait_ready()
        wait_until(lambda: bool(made.lines("broker is ready")), "the broker being set up")
        yield made


async def ask(js: JetStreamContext, kind: str, message: dict[str, Any]) -> None:
    """Publish an action for the daemon's node."""
    await js.publish(f"actions.test.node.{kind}", json.dumps(message).encode())


async def events(js: JetStreamContext, action_id: str) -> list[dict[str, Any]]:
    """All events of an action, to its last one."""
    found: list[dict[str, Any]] = []
    subscription = await js.subscribe(f"action-events.test.{action_id}", ordered_consumer=True)
    while not found or found[-1]["state"] not in ("ready", "error"):
        found.append(json.loads((await subscription.next_msg(SECONDS)).data))
    await subscription.unsubscribe()
    return found


async def test_a_message_becomes_a_checkpoint_that_verifies(
    lab: Lab, broker: NatsServer, daemon: Daemon
) -> None:
    container = lab.runc.start(lab.runc.build(COUNTER, memory(4)))
    target = {"id": container.id, "runcRoot": str(container.runc.path)}
    async with stream(broker) as js:
        await ask(js, "checkpoint", {"actionId": "a-1", "checkpoint": {"container": target}})
        said = await events(js, "a-1")
    states = [event["state"] for event in said if "progress" not in event]
    assert states == ["initialized", "processing", "checkpoint_created", "ready"], said[-1]
    outcome = said[-1]["checkpoint"]
    done = run_cli("verify", outcome["path"], "-o", "json")
    assert only_document(done.stdout)["chunks"] == outcome["chunks"]
    assert_unharmed(container)
    (line,) = daemon.lines("action done")
    assert line["action_id"] == "a-1"
    assert line["phases"]
    scrape = daemon.get("/metrics")
    assert 'actions_total{state="ready",type="checkpoint_pod"} 1.0' in scrape
    assert "checkpoint_agent_frozen_seconds_count 1.0" in scrape
    assert daemon.stop() == 0


async def test_the_inventory_knows_the_node_until_it_stops(
    broker: NatsServer, daemon: Daemon
) -> None:
    async with stream(broker) as js:

        async def node() -> dict[str, Any] | None:
            try:
                bucket = await js.key_value("checkpoint-inventory")
            except nats.js.errors.BucketNotFoundError:
                return None  # it is ready without its broker, too
            if "test.node" not in await _keys(bucket):
                return None
            return dict(json.loads((await bucket.get("test.node")).value or b"{}"))

        async with asyncio.timeout(SECONDS):
            while (found := await node()) is None:
                await asyncio.sleep(0.05)
        assert (found["cluster"], found["node"]) == ("test", "node")
        assert daemon.stop() == 0
        assert await node() is None


async def _keys(bucket: nats.js.kv.KeyValue) -> list[str]:
    try:
        return list(await bucket.keys())
    except nats.js.errors.NoKeysError:
        return []


async def test_the_metrics_tell_whether_there_is_a_broker(
    lab: Lab, broker: NatsServer, daemon: Daemon
) -> None:
    async with stream(broker) as js:
        target = {"id": "nobody", "runcRoot": str(lab.runc.path)}
        await ask(js, "checkpoint", {"actionId": "a-1", "checkpoint": {"container": target}})
        said = await events(js, "a-1")
        assert said[-1]["failure"]["code"] == "target_not_found"
    broker.kill()
    wait_until(lambda: _metric(daemon, "broker_connected") == 0, "the metric saying so")
    broker.start()
    wait_until(lambda: _metric(daemon, "broker_connected") == 1, "the metric saying so")
    assert daemon.stop() == 0


def _metric(daemon: Daemon, name: str) -> float:
    for line in daemon.get("/metrics").splitlines():
        if line.startswith(f"checkpoint_agent_{name} "):
            return float(line.rpartition(" ")[2])
    raise AssertionError(f"no metric {name}")


def test_a_broker_that_is_away_delays_neither_readiness_nor_the_end(tmp_path: Path) -> None:
    # Nobody listens on the port of a server that has gone.
    tables: Tables = {
        "nats": {"url": "nats://127.0.0.1:1"},
        "pods": {"runc_roots": [str(tmp_path)]},
    }
    with daemon_in(tmp_path, tables) as daemon:
        daemon.start()
        daemon.wait_ready()
        assert daemon.stop() == 0
