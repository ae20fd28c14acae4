"""Pods with connections: between their containers, and from another pod."""

from __future__ import annotations

import asyncio
import json
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from agent.actions import Engine, Executor, PodRestores
from agent.chunks import read_manifest
from agent.config import find_tools
from agent.manifest import Options
from agent.messages.model import ActionRequest, CheckpointOverrides, CheckpointSpec, Event
from agent.metrics import Metrics
from agent.settings import Settings
from agent.store import open_checkpoint
from agent.targets import PodRef
from agent.tcp import FOR_PODS, flags
from bench.bundle import service
from bench.reports import Service, wait_until
from tests.networks import Stream, connect, echoed, filter_rules, in_network
from tests.pod_checks import assert_pod_unharmed, network_of
from tests.servers.containerd import ContainerdServer
from tests.servers.cri_pods import ContainerSpec, Pod

pytestmark = [pytest.mark.root, pytest.mark.criu]

PORT, OTHER = 7000, 7001


@asynccontextmanager
async def executing(
    directory: Path, containerd: ContainerdServer, criu_opts: dict[str, object] | None = None
) -> AsyncIterator[Executor]:
    """A node's executor that knows this containerd's pods."""
    settings = Settings.model_validate(
        {
            "state_dir": directory / "state",
            "storage": {"store": str(directory / "store")},
            "checkpoint": {"criu_opts": criu_opts or {}},
            "pods": {"runc_roots": [containerd.runc_root]},
        }
    )
    executor = Executor(settings, Engine(settings, find_tools(), PodRestores()), Metrics("test"))
    await executor.start()
    try:
        yield executor
    finally:
        await executor.stop(0)
        await executor.close()


async def checkpoint(executor: Executor, pod: Pod, action: str, **criu_opts: object) -> Event:
    """What becomes of a pod's checkpoint."""
    overrides = CheckpointOverrides(criu_opts=json.dumps(criu_opts) if criu_opts else None)
    spec = CheckpointSpec(PodRef(uid=pod.uid), overrides=overrides)
    await executor.submit(ActionRequest(action, spec))
    return (await executor.wait(action)).event


def told(event: Event) -> Options:
    """What CRIU was told of the pod's first container."""
    assert event.checkpoint is not None, event.failure
    store, name = open_checkpoint(event.checkpoint.path)
    return read_manifest(store, name).members[0].options


def address_of(pod: Pod) -> str:
    """The pod's own address."""
    listed = in_network(network_of(pod), "ip", "-o", "-4", "address", "show", "scope", "global")
    return listed.split()[3].partition("/")[0]


def pair(containerd: ContainerdServer) -> tuple[Pod, Path]:
    """A pod whose containers are each other's clients over localhost; another pod's network."""
    specs = [
        ContainerSpec("one", workload=service(PORT, OTHER)),
        ContainerSpec("two", workload=service(OTHER, PORT)),
    ]
    return containerd.run_pod("pair", containers=specs), network_of(containerd.run_pod("client"))


def assert_talking(pod: Pod) -> None:
    """Each container goes on asking the other, and has never missed an answer."""
    for name in pod.containers:
        report = pod.report(name)
        report.wait_beyond(Service.LAPS, report.read(Service.LAPS) + 50)
        assert report.read(Service.ERRORS) == 0
        assert report.read(Service.BROKEN) == 0


async def test_containers_and_clients_of_a_pod_notice_nothing(
    tmp_path: Path, containerd: ContainerdServer
) -> None:
    pod, beyond = pair(containerd)
    assert_talking(pod)
    address = address_of(pod)
    with Stream(beyond, address, PORT) as one, Stream(beyond, address, OTHER) as two:
        async with executing(tmp_path, containerd) as executor:
            for number in range(3):
                event = await checkpoint(executor, pod, f"a-{number}")
                assert {**told(event).model_dump(), **flags(FOR_PODS)} == told(event).model_dump()
                for client in (one, two):
                    client.goes_on()
                assert_talking(pod)
        assert_pod_unharmed(pod)
        assert filter_rules(network_of(pod)) == []


@contextmanager
def coming_and_going(network: Path, address: str) -> Iterator[list[Exception]]:
    """Clients that connect, say something and leave, one after the other, and what they met."""
    met: list[Exception] = []
    over = threading.Event()

    def visit() -> None:
        while not over.is_set() and not met:
            try:
                with connect(network, address, PORT) as client:
                    assert echoed(client, b"hello") == b"hello"
            except (OSError, AssertionError) as error:
                met.append(error)

    visitors = [threading.Thread(target=visit) for _ in range(3)]
    for each in visitors:
        each.start()
    try:
        yield met
    finally:
        over.set()
        for each in visitors:
            each.join()


async def test_a_pod_that_is_busy_is_not_refused(
    tmp_path: Path, containerd: ContainerdServer
) -> None:
    pod = containerd.run_pod("busy", containers=[ContainerSpec("one", workload=service(PORT))])
    beyond = network_of(containerd.run_pod("client"))
    with coming_and_going(beyond, address_of(pod)) as met:
        wait_until(lambda: pod.report("one").read(Service.ACCEPTED) > 10, "visitors")
        async with executing(tmp_path, containerd) as executor:
            for number in range(5):
                event = await checkpoint(executor, pod, f"a-{number}")
                assert event.checkpoint is not None, event.failure
                await asyncio.sleep(0.05)
        assert met == []
    assert met == []


async def test_a_request_and_the_node_decide_otherwise(
    tmp_path: Path, containerd: ContainerdServer
) -> None:
    pod = containerd.run_pod("web", containers=[ContainerSpec("one", workload=service(PORT))])
    beyond = network_of(containerd.run_pod("client"))
    with connect(beyond, address_of(pod), PORT) as client:
        async with executing(tmp_path, containerd) as executor:
            strict = {"tcp_established": False, "tcp_skip_in_flight": False}
            refused = await checkpoint(executor, pod, "strict", **strict)
            assert refused.failure is not None
            assert "--tcp-established" in refused.failure.message
            closed = told(await checkpoint(executor, pod, "closed", tcp="close"))
            assert (closed.tcp_established, closed.tcp_close) == (False, True)
            twice = await checkpoint(executor, pod, "twice", tcp="close", tcp_established=True)
            assert twice.failure is not None
            assert twice.failure.code == "invalid_argument"
            assert "checkpoint.overrides.criuOpts" in twice.failure.message
        async with executing(tmp_path, containerd, {"tcp": "established"}) as executor:
            kept = told(await checkpoint(executor, pod, "node"))
            assert (kept.tcp_established, kept.tcp_skip_in_flight) == (True, False)
        assert echoed(client, b"still there") == b"still there"


# With one jump more than CRIU takes back: iptables keeps the chain then, and all else of the lock.
HELD = """*filter
:CRIU - [0:0]
-I INPUT -j CRIU
-I OUTPUT -j CRIU
-I OUTPUT -j CRIU
-A CRIU -m mark --mark 0xC114 -j ACCEPT
-A CRIU -j DROP
COMMIT
"""


def _hold(network: Path) -> None:
    words = ["nsenter", f"--net={network}", "iptables-restore", "--noflush"]
    subprocess.run(words, input=HELD, text=True, check=True)


async def test_a_lock_that_no_criu_can_take_back_is_taken_back(
    tmp_path: Path, containerd: ContainerdServer
) -> None:
    pod, _ = pair(containerd)
    network = network_of(pod)
    _hold(network)
    async with executing(tmp_path, containerd) as executor:
        event = await checkpoint(executor, pod, "a-1")
    assert event.failure is None
    assert filter_rules(network) == []
    assert_pod_unharmed(pod)
