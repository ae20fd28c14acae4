"""Pods of a cluster as they are made and read, on a server that stumbles or is asked odd things."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.cluster import Kubernetes, path_of
from agent.cluster.pod import Restoration, restored_pod
from agent.cluster.pod_state import is_going
from agent.cluster.pods import Pods
from agent.cluster.refusals import NamespaceMissing, SpecInvalid
from agent.errors import ClusterRefused, ClusterUnreachable
from agent.settings import Cluster
from tests.kubernetes_pods import small_pod
from tests.servers.kubernetes import KubernetesServer, kubernetes_server
from tests.servers.kubernetes_status import Object, Refusal, conflict


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[KubernetesServer]:
    with kubernetes_server(tmp_path) as made:
        yield made


@pytest.fixture
async def pods(server: KubernetesServer) -> AsyncIterator[Pods]:
    settings = Cluster(in_cluster=True, service_account_dir=server.service_account())
    async with Kubernetes.connect(settings, server.environment) as kubernetes:
        yield Pods(kubernetes)
        # First: a TLS connection that is closed while it is in use waits for the other's goodbye.
        server.stop()


def body(action_id: str = "action-1") -> Object:
    pod = small_pod()
    wanted = Restoration("s3://bucket/one", action_id, "default")
    return restored_pod(pod["spec"], pod["metadata"], wanted)


async def test_others_in_the_same_moment_are_no_reason_to_give_up(
    server: KubernetesServer, pods: Pods
) -> None:
    """Two pods that a quota counts at once: the later one is to be made again, says Kubernetes."""
    changed = conflict("resourcequotas", "gpus", "the object has been modified")
    server.fail("create", "pods", changed)
    with pytest.raises(ClusterUnreachable, match="object has been modified"):
        await pods.ensure(body())
    made = await pods.ensure(body())
    assert made is not None
    # The second try of somebody who has not heard of the first.
    assert await pods.ensure(body()) == made
    with pytest.raises(ClusterRefused, match="already exists"):
        await pods.ensure(body("action-2"))


async def test_one_that_was_deleted_at_once_is_not_made_again(
    server: KubernetesServer, pods: Pods
) -> None:
    server.fail("create", "pods", None, done=True)
    with pytest.raises(ClusterUnreachable):
        await pods.ensure(body())
    server.store.graceful = True
    server.store.remove("pods", "default", "web")
    made = await pods.ensure(body())
    assert made is not None
    assert is_going(made)
    # One of somebody else's is waited for.
    assert await pods.ensure(body("action-2")) is None


async def test_what_cannot_be_read_as_a_pod(server: KubernetesServer, pods: Pods) -> None:
    told = 'Pod in version "v1" cannot be handled as a Pod: json: cannot unmarshal array into Go'
    server.fail("create", "pods", Refusal(400, "BadRequest", told))
    with pytest.raises(SpecInvalid):
        await pods.ensure(body())


@pytest.mark.parametrize("name", ["", ".", ".."])
async def test_names_that_lead_elsewhere(server: KubernetesServer, pods: Pods, name: str) -> None:
    with pytest.raises(ClusterRefused):
        path_of("api/v1/namespaces", name, "pods", "web")
    assert await pods.read(name, "web") is None
    assert await pods.read("default", name) is None
    assert await pods.warnings(name, "uid") == []
    odd = body()
    odd["metadata"]["namespace"] = name
    with pytest.raises(NamespaceMissing):
        await pods.ensure(odd)
    assert server.requests == []
