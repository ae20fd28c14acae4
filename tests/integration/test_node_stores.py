"""Asynchronous actions: the containers run while the store still works, and hear when it fails."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench.bundle import COUNTER, memory
from bench.reports import Counter, wait_until
from bench.runc import RuncRoot
from tests.cli_process import run_cli
from tests.fakes.hooked_criu import HookedCriu
from tests.fakes.slow_store import Gate
from tests.integration.aftermath import assert_unharmed
from tests.integration.lab import Lab
from tests.nodes import Json, Node, node_on
from tests.runc_pods import named, run_container
from tests.servers.moto import Fault, MotoServer
from tests.servers.nats import NatsServer
from tests.servers.s3 import ask

pytestmark = [pytest.mark.root, pytest.mark.criu]

MIB = 1 << 20


@pytest.fixture
def gate(moto: MotoServer) -> Iterator[Gate]:
    """Where the store's requests end up that a test has it hold."""
    made = Gate()
    yield made
    made.open()


@contextmanager
def staging_node(
    directory: Path,
    runc: RuncRoot,
    broker: NatsServer,
    moto: MotoServer,
    criu: HookedCriu | None = None,
) -> Iterator[Node]:
    """A node that stores into S3, works on one action at a time, and has memory to stage them."""
    bucket = directory.name.replace("_", "-").lower()[:60].rstrip("-")
    moto.create_bucket(bucket)
    tables: dict[str, dict[str, object]] = {
        "storage": {"store": moto.url(bucket, "/checkpoints")},
        "checkpoint": {"staging_bytes": 64 * MIB, "concurrency": 1},
    }
    env = {"AWS_ACCESS_KEY_ID": moto.key, "AWS_SECRET_ACCESS_KEY": moto.secret}
    if criu is not None:
        env["CHECKPOINT_AGENT_CRIU"] = str(criu.program)
    with node_on(directory, broker, runc_roots=[runc.path], tables=tables, env=env) as node:
        yield node


def objects(node: Node, moto: MotoServer) -> str:
    """The listing of the node's bucket."""
    bucket = str(node.daemon.tables["storage"]["store"]).partition("://")[2].partition("/")[0]
    return ask("GET", f"{moto.endpoint}/{bucket}?list-type=2")


def asynchronous(pod: str) -> Json:
    """A checkpoint that lets others begin when it is captured."""
    return {**named(pod), "overrides": {"asynchronous": True, "compression": "none"}}


def test_it_runs_while_the_store_works(
    runc: RuncRoot, broker: NatsServer, moto: MotoServer, gate: Gate, tmp_path: Path
) -> None:
    pods = {name: run_container(runc, name, "app", COUNTER, memory(16)) for name in ("a", "b")}
    moto.faults.append(Fault("PUT", "", "503 Slow Down", times=2, path="/stream-", gate=gate))
    with staging_node(tmp_path, runc, broker, moto) as node:
        node.ask("a-1", checkpoint=asynchronous("a"))
        captured = node.wait_state("a-1", "checkpoint_created")["checkpoint"]
        wait_until(gate.reached.is_set, "the store being written to")
        assert_unharmed(pods["a"])
        # The only place is free again.
        node.ask("a-2", checkpoint=asynchronous("b"))
        node.wait_state("a-2", "checkpoint_created")
        assert_unharmed(pods["b"])
        assert "ready" not in node.states("a-1")
        gate.open()
        for action_id, pod in (("a-1", "a"), ("a-2", "b")):
            outcome = node.ready(action_id)
            assert outcome["frozenSeconds"] < outcome["wallSeconds"]
            assert run_cli("verify", outcome["path"], env=node.daemon.env).returncode == 0
            assert_unharmed(pods[pod])
        outcome = node.ready("a-1")
        for name in ("checkpointId", "path", "frozenSeconds", "containers"):
            assert captured[name] == outcome[name], name
        node.wait_acknowledged()
        node.assert_idle()


def test_a_store_that_fails_afterwards_is_an_error_event(
    runc: RuncRoot, broker: NatsServer, moto: MotoServer, gate: Gate, tmp_path: Path
) -> None:
    pod = run_container(runc, "a", "app", COUNTER, memory(16))
    moto.faults.append(Fault("PUT", "", "403 Forbidden", path="/stream-", gate=gate))
    with staging_node(tmp_path, runc, broker, moto) as node:
        node.ask("a-1", checkpoint=asynchronous("a"))
        node.wait_state("a-1", "checkpoint_created")
        ticks = pod.report("counter").read(Counter.TICKS)
        gate.open()
        failure = node.failure("a-1")
        assert failure["code"] == "store_failed"
        assert "403" in failure["message"]
        assert node.states("a-1") == ["initialized", "processing", "checkpoint_created", "error"]
        pod.report("counter").wait_beyond(Counter.TICKS, ticks)
        assert_unharmed(pod)
        node.wait_acknowledged()
        node.assert_idle()
        assert "<Key>" not in objects(node, moto)

        moto.faults.clear()
        node.ask("a-2", checkpoint=asynchronous("a"))
        node.ready("a-2")


def test_a_store_that_is_away_is_an_error_before_anything_is_touched(
    lab: Lab, broker: NatsServer, moto: MotoServer
) -> None:
    pod = run_container(lab.runc, "a")
    criu, _ = lab.hook("pre-dump", "pass")
    with staging_node(lab.directory, lab.runc, broker, moto, criu) as node:
        # What it is tried with begins an upload, and leaves nothing.
        moto.faults.append(Fault("POST", "uploads", "403 Forbidden"))
        node.ask("a-1", checkpoint=named("a"))
        failure = node.failure("a-1")
        assert failure["code"] == "store_failed"
        assert criu.hooks() == []
        assert_unharmed(pod)
        node.wait_acknowledged()
        node.assert_idle()
