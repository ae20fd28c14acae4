"""Pods that cannot be checkpointed, or die meanwhile: all or nothing, and the node goes on."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.config import find_tools
from agent.host.runc import load
from agent.targets import RuncTarget
from bench.bundle import family
from bench.reports import Family, wait_until
from tests.cli_process import run_cli
from tests.fakes.hooked_criu import HookedCriu, hooked_criu
from tests.nodes import Node, node_on
from tests.pod_checks import assert_pod_unharmed, named, stood_still
from tests.servers.containerd import ContainerdServer
from tests.servers.cri_pods import ContainerSpec, Pod
from tests.servers.nats import NatsServer

pytestmark = [pytest.mark.root, pytest.mark.criu]

TWO = (ContainerSpec("app"), ContainerSpec("side"))


@pytest.fixture
def node(tmp_path: Path, containerd: ContainerdServer, broker: NatsServer) -> Iterator[Node]:
    with node_on(tmp_path, broker, runc_roots=[containerd.runc_root]) as made:
        yield made


@contextmanager
def holding(
    directory: Path, containerd: ContainerdServer, broker: NatsServer, hook: str
) -> Iterator[tuple[Node, HookedCriu]]:
    """A node whose CRIU waits in a hook until it is released."""
    criu = hooked_criu(directory / "criu", find_tools().criu, hook)
    env = {"CHECKPOINT_AGENT_CRIU": str(criu.program)}
    with node_on(directory, broker, runc_roots=[containerd.runc_root], env=env) as node:
        try:
            yield node, criu
        finally:
            criu.release()


def kill(pod: Pod, container: str) -> None:
    """As the kernel does when memory runs out."""
    target = RuncTarget(pod.containers[container], pod.server.runc_root)
    os.kill(load(target).pid, signal.SIGKILL)


def assert_nothing_stored(node: Node) -> None:
    """No action has left anything, neither in the store nor half done."""
    node.assert_idle()
    assert node.stored() == []


def test_all_or_nothing(node: Node, containerd: ContainerdServer) -> None:
    # Connections within the container, which CRIU dumps only as long as it is allowed to.
    specs = [ContainerSpec("app"), ContainerSpec("talks", workload=family())]
    pod = containerd.run_pod("connected", containers=specs)
    strict = {"criuOpts": '{"tcp_established": false}'}
    node.ask("a-1", checkpoint={**named(pod), "overrides": strict})
    failure = node.failure("a-1")
    assert failure["code"] == "dump_failed"
    assert "--tcp-established" in failure["message"]
    assert "talks" in failure["message"]
    assert "--tcp-established" in failure["logTail"]
    assert failure["state"]
    assert "checkpoint_created" not in node.states("a-1")
    assert_pod_unharmed(pod)
    assert_works(pod, "talks")
    assert_nothing_stored(node)

    node.ask("a-2", checkpoint=named(pod))
    assert run_cli("verify", node.ready("a-2")["path"]).returncode == 0
    assert_pod_unharmed(pod)
    assert_works(pod, "talks")
    node.wait_acknowledged()


def assert_works(pod: Pod, container: str) -> None:
    """The family's token goes round, over all its connections."""
    report = pod.report(container)
    report.wait_beyond(Family.LAPS, report.read(Family.LAPS) + 20)
    assert report.read(Family.ERRORS) == 0


def test_two_containers_with_connections(node: Node, containerd: ContainerdServer) -> None:
    # Both dumps lock and unlock the network of one namespace.
    specs = [ContainerSpec(name, workload=family()) for name in ("one", "other")]
    pod = containerd.run_pod("connected", containers=specs)
    for number in range(3):
        overrides = {"criuOpts": '{"tcp_established": true}'}
        node.ask(f"a-{number}", checkpoint={**named(pod), "overrides": overrides})
        node.ready(f"a-{number}")
        for name in pod.containers:
            assert_works(pod, name)
        assert_pod_unharmed(pod)


def test_a_container_that_dies_in_the_dump(
    tmp_path: Path, containerd: ContainerdServer, broker: NatsServer
) -> None:
    pod = containerd.run_pod("dying", containers=TWO)
    with holding(tmp_path, containerd, broker, "network-lock") as (node, criu):
        node.ask("a-1", checkpoint=named(pod))
        wait_until(criu.reached, "the dump")
        kill(pod, "side")
        criu.release()
        # Whether it was dead before its memory was read is up to the kernel.
        event = node.outcome("a-1")
        if event["state"] == "error":
            assert event["failure"]["code"] in ("dump_failed", "target_lost"), event
            assert event["failure"]["message"]
            assert_nothing_stored(node)
        del pod.containers["side"]
        assert_pod_unharmed(pod)
        node.wait_acknowledged()

        node.ask("a-2", checkpoint=named(pod))
        assert node.ready("a-2")["containers"] == ["app"]
        assert_pod_unharmed(pod)


def test_a_pod_that_dies_as_a_whole_in_the_dump(
    tmp_path: Path, containerd: ContainerdServer, broker: NatsServer
) -> None:
    pod = containerd.run_pod("dying", containers=TWO)
    good = containerd.run_pod("living")
    with holding(tmp_path, containerd, broker, "pre-dump") as (node, criu):
        node.ask("a-1", checkpoint=named(pod))
        wait_until(criu.reached, "the dump")
        os.kill(criu.pid(), signal.SIGKILL)
        for name in pod.containers:
            kill(pod, name)
        criu.release()
        failure = node.failure("a-1")
        assert failure["code"] in ("dump_failed", "target_lost"), failure
        assert_nothing_stored(node)
        node.wait_acknowledged()
        node.ask("a-2", checkpoint=named(good))
        node.ready("a-2")
        assert_pod_unharmed(good)


def test_a_pod_deleted_before_its_turn(
    tmp_path: Path, containerd: ContainerdServer, broker: NatsServer
) -> None:
    first, second = containerd.run_pod("first", containers=TWO), containerd.run_pod("second")
    criu = hooked_criu(tmp_path / "criu", find_tools().criu, "post-dump")
    with node_on(
        tmp_path,
        broker,
        runc_roots=[containerd.runc_root],
        tables={"checkpoint": {"concurrency": 1}},
        env={"CHECKPOINT_AGENT_CRIU": str(criu.program)},
    ) as node:
        node.ask("a-1", checkpoint=named(first))
        wait_until(criu.reached, "the first one's dump")
        node.ask("a-2", checkpoint=named(second))
        node.wait_state("a-2", "initialized")
        second.remove()
        criu.release()
        node.ready("a-1")
        assert node.failure("a-2")["code"] == "pod_not_found"
        assert_pod_unharmed(first)
        node.assert_idle()


def test_a_cancelled_pod_runs_on(
    tmp_path: Path, containerd: ContainerdServer, broker: NatsServer
) -> None:
    pod = containerd.run_pod("wanted-no-more", containers=TWO)
    with holding(tmp_path, containerd, broker, "post-dump") as (node, criu):
        node.ask("a-1", checkpoint=named(pod))
        wait_until(criu.reached, "the dump")
        wait_until(stood_still(pod, 0.2), "the pod standing still")
        node.cancel("a-1")
        wait_until(lambda: bool(node.daemon.lines("giving up")), "the wish being heard")
        criu.release()
        assert node.failure("a-1")["code"] == "cancelled"
        assert_pod_unharmed(pod)
        assert_nothing_stored(node)
        node.wait_acknowledged()
