"""A pod made through containerd's CRI, checkpointed by a message in the plain NATS protocol."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nats
import pytest

from bench.reports import Counter, wait_until
from tests.cli_process import only_document, run_cli
from tests.daemons import Daemon, Tables, daemon_in
from tests.servers.containerd import ContainerdServer, containerd_server
from tests.servers.cri_pods import ContainerSpec, Pod
from tests.servers.nats import NatsServer, nats_server
from tests.servers.nats_client import PlainClient

pytestmark = [pytest.mark.root, pytest.mark.criu]

SECONDS = 50


@pytest.fixture(scope="module")
def server() -> Iterator[ContainerdServer]:
    if os.geteuid() != 0:
        pytest.skip("containers need root")
    with containerd_server() as made:
        yield made


@pytest.fixture
def pod(server: ContainerdServer) -> Iterator[Pod]:
    """Two containers that count and share a volume."""
    specs = [
        ContainerSpec("app", env={"CHECKPOINT_NAME": "nightly"}, volumes={"cache": "/cache"}),
        ContainerSpec("side", volumes={"cache": "/cache"}),
    ]
    yield server.run_pod("web-1", containers=specs)
    server.remove_pods()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[NatsServer]:
    """A server with JetStream."""
    with nats_server(tmp_path) as made:
        yield made


@pytest.fixture
def daemon(tmp_path: Path, server: ContainerdServer, broker: NatsServer) -> Iterator[Daemon]:
    """Ready, with the broker set up."""
    tables: Tables = {
        "nats": {"url": broker.url},
        "pods": {"runc_roots": [str(server.runc_root)]},
    }
    with daemon_in(tmp_path, tables) as made:
        made.start()
        made.wait_ready()
        wait_until(lambda: bool(made.lines("broker is ready")), "the broker being set up")
        yield made


async def events(broker: NatsServer, action_id: str) -> list[dict[str, Any]]:
    """All events of an action, in the order of the stream, to its last one."""
    client = await nats.connect(broker.url)
    found: list[dict[str, Any]] = []
    try:
        async with asyncio.timeout(SECONDS):
            subscription = await client.jetstream().subscribe(
                f"action-events.test.{action_id}", ordered_consumer=True
            )
            while not found or found[-1]["state"] not in ("ready", "error"):
                found.append(json.loads((await subscription.next_msg(SECONDS)).data))
    finally:
        await client.close()
    return found


def ask(broker: NatsServer, action_id: str, checkpoint: dict[str, object]) -> None:
    """Publish an action as any client of NATS can."""
    with PlainClient(broker.port) as client:
        message = json.dumps({"actionId": action_id, "checkpoint": checkpoint})
        client.publish("actions.test.node.checkpoint", message.encode())


@pytest.mark.parametrize("kind", ["simple", "rootfs"])
async def test_a_pod_becomes_a_checkpoint_that_verifies(
    pod: Pod, broker: NatsServer, daemon: Daemon, kind: str
) -> None:
    for name in pod.containers:
        reset(pod, name)
    ask(broker, "a-1", {"pod": {"namespace": "default", "name": "web-1"}, "kind": kind})
    said = await events(broker, "a-1")
    states = [event["state"] for event in said if "progress" not in event]
    assert states == ["initialized", "processing", "checkpoint_created", "ready"], said[-1]
    sequences = [int(event["sequence"]) for event in said]
    assert sequences == sorted(set(sequences))
    outcome = said[-1]["checkpoint"]
    assert sorted(outcome["containers"]) == ["app", "side"]
    assert outcome["name"] == "nightly"
    assert said[-1]["pod"]["uid"] == pod.uid
    verified = only_document(run_cli("verify", outcome["path"], "-o", "json").stdout)
    assert verified["chunks"] == outcome["chunks"]
    for name in pod.containers:
        assert_counts(pod, name)
        # The report is the agent's own clock; a busy machine adds its delays to what is seen here.
        stood = pod.report(name).read(Counter.GAP_NS) / 1e9
        assert stood <= outcome["frozenSeconds"] + 0.5


async def test_nobody_else_s_pod_is_an_error_with_a_name(
    pod: Pod, broker: NatsServer, daemon: Daemon
) -> None:
    ask(broker, "a-2", {"pod": {"namespace": "default", "name": "web-"}})
    said = await events(broker, "a-2")
    assert said[-1]["failure"]["code"] == "pod_not_found"
    assert_counts(pod, "app")


def reset(pod: Pod, name: str) -> None:
    """Have a counter look for its largest gap from now on."""
    report = pod.report(name)
    report.write(Counter.RESET, report.read(Counter.RESET_DONE) + 1)
    report.wait_beyond(Counter.RESET_DONE, report.read(Counter.RESET) - 1)


def assert_counts(pod: Pod, name: str) -> None:
    """It counts on, and has never been anything but itself."""
    report = pod.report(name)
    report.wait_beyond(Counter.TICKS, report.read(Counter.TICKS) + 10)
    assert report.read(Counter.RESUMES) == 0
