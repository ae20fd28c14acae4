"""A node that Kubernetes says goes: cordons and taints, as they come and are taken back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agent.cluster.node import NodeSource, departure
from agent.drain import Notice
from agent.settings import Cluster
from tests.servers.kubernetes import KubernetesServer, kubernetes_server
from tests.servers.kubernetes_status import Refusal, forbidden
from tests.waiting import eventually_async

NODE = "ip-10-0-0-1.ec2.internal"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[KubernetesServer]:
    with kubernetes_server(tmp_path) as made:
        for name in (NODE, "other"):
            made.store.add("nodes", "", {"metadata": {"name": name}, "spec": {}})
        yield made


def change(server: KubernetesServer, name: str = NODE, **spec: Any) -> None:  # noqa: ANN401 - any JSON
    """As `kubectl cordon` and `kubectl taint` do."""
    server.store.change("nodes", "", name, lambda node: node["spec"].update(spec))


@asynccontextmanager
async def watching(server: KubernetesServer) -> AsyncIterator[list[Notice | None]]:
    """What the source tells, as it tells it."""
    told: list[Notice | None] = []

    def tell(notice: Notice | None) -> asyncio.Event:
        told.append(notice)
        return asyncio.Event()

    settings = Cluster(in_cluster=True, service_account_dir=server.service_account())
    task = asyncio.create_task(NodeSource(settings, server.environment, NODE).watch(tell))
    try:
        await eventually_async(lambda: server.count("watch", "nodes") > 0, "the watch")
        yield told
        assert not task.done(), task
    finally:
        # First: a TLS connection that is closed while it is in use waits for the server's goodbye.
        server.stop()
        await asyncio.sleep(0.1)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_a_cordon_and_its_end(server: KubernetesServer) -> None:
    async with watching(server) as told:
        change(server, "other", unschedulable=True)
        change(server, taints=[{"key": "dedicated", "effect": "NoSchedule"}])
        change(server, unschedulable=True)
        await eventually_async(lambda: bool(told), "the notice")
        assert told == [Notice("the node is cordoned")]
        change(server, unschedulable=False)
        await eventually_async(lambda: told[-1] is None, "the notice being taken back")


async def test_a_node_that_is_cordoned_already(server: KubernetesServer) -> None:
    change(server, unschedulable=True)
    async with watching(server) as told:
        await eventually_async(lambda: bool(told), "the notice")


async def test_an_api_server_that_goes_and_comes_back(server: KubernetesServer) -> None:
    async with watching(server) as told:
        server.stop()
        await asyncio.sleep(0.2)
        change(server, unschedulable=True)
        assert told == []
        server.start()
        await eventually_async(lambda: bool(told), "the notice")


async def test_a_watch_that_ends_at_once_is_not_begun_at_once(server: KubernetesServer) -> None:
    server.fail("watch", "nodes", Refusal(410, "Expired", "too old"), times=10_000)
    async with watching(server) as told:
        await asyncio.sleep(1.5)
        assert server.count("watch", "nodes") <= 3
        server.faults.clear()
        change(server, unschedulable=True)
        await eventually_async(lambda: bool(told), "the notice")


async def test_who_may_read_and_not_watch_hears_of_it_once(
    server: KubernetesServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.fail("watch", "nodes", forbidden("watch", "nodes", ""), times=10_000)
    async with watching(server):
        await eventually_async(lambda: server.count("watch", "nodes") > 2, "some tries")
    assert caplog.text.count("no word from the cluster") == 1


@pytest.mark.parametrize(
    ("spec", "word"),
    [
        (
            {"taints": [{"key": "node.kubernetes.io/out-of-service", "value": "nodeshutdown"}]},
            "out",
        ),
        ({"taints": [{"key": "a"}, {"key": "ToBeDeletedByClusterAutoscaler"}]}, "Autoscaler"),
        ({"taints": [{"key": "aws-node-termination-handler/spot-itn"}]}, "spot"),
        ({"taints": [{"key": "karpenter.sh/disrupted"}], "unschedulable": True}, "karpenter"),
        ({"unschedulable": True}, "cordoned"),
        ({"taints": [{"key": "DeletionCandidateOfClusterAutoscaler"}]}, None),
        ({"taints": [{"key": "node.kubernetes.io/not-ready"}]}, None),
        ({"taints": "all of them"}, None),
        ({"taints": [7, {"key": []}, {}], "unschedulable": "true"}, None),
        ({"taints": None}, None),
        ([], None),
        (None, None),
    ],
)
def test_what_says_that_a_node_goes(spec: object, word: str | None) -> None:
    found = departure({"spec": spec})
    assert (found is None) if word is None else (word in (found or ""))
