"""The connection to Kubernetes' API server: who we are there, and what its answers become."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.cluster import Kubernetes, path_of
from agent.errors import AgentError, ClusterRefused, ClusterUnreachable, InvalidArgument
from agent.settings import Cluster
from tests.servers.certificates import Authority
from tests.servers.kubernetes import KubernetesServer, kubernetes_server
from tests.servers.kubernetes_status import Refusal

NODES = path_of("api/v1/nodes")
PODS = path_of("api/v1/namespaces", "default", "pods")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[KubernetesServer]:
    with kubernetes_server(tmp_path) as made:
        made.store.add("nodes", "", {"metadata": {"name": "node-a"}})
        yield made


def in_cluster(server: KubernetesServer) -> Cluster:
    return Cluster(in_cluster=True, service_account_dir=server.service_account())


async def names(settings: Cluster, environ: dict[str, str]) -> list[str]:
    """The nodes, as one with these settings sees them."""
    async with Kubernetes.connect(settings, environ) as kubernetes:
        found = await kubernetes.get("list nodes", NODES)
    return [each["metadata"]["name"] for each in found["items"]]


async def failure(settings: Cluster, environ: dict[str, str] | None = None) -> AgentError:
    """What listing nodes fails with."""
    with pytest.raises(AgentError) as caught:
        await names(settings, environ or {})
    return caught.value


async def test_both_ways_in(
    server: KubernetesServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    assert await names(in_cluster(server), server.environment) == ["node-a"]
    token_file = tmp_path / "token-file"
    token_file.write_text(f"{server.token}\n")
    mine = server.authority.issue("me")
    data = {
        f"client-{name}-data": base64.b64encode(file.read_bytes()).decode()
        for name, file in (("certificate", mine.cert), ("key", mine.key))
    }
    users: list[dict[str, Any]] = [
        {"token": server.token},
        # Relative to the kubeconfig, as for kubectl.
        {"tokenFile": token_file.name},
        {"client-certificate": str(mine.cert), "client-key": str(mine.key)},
        data,
    ]
    for user in users:
        assert await names(Cluster(kubeconfig=server.kubeconfig(user=user)), {}) == ["node-a"]
    # A key that was written for the client to read is not left there.
    assert os.listdir(temporary) == []


async def test_a_token_that_is_changed_is_read_again(server: KubernetesServer) -> None:
    settings = in_cluster(server)
    async with Kubernetes.connect(settings, server.environment) as kubernetes:
        await kubernetes.get("list nodes", NODES)
        server.tokens = {"another"}
        with pytest.raises(ClusterRefused) as caught:
            await kubernetes.get("list nodes", NODES)
        assert caught.value.status == 401
        (settings.service_account_dir / "token").write_text("another")
        await kubernetes.get("list nodes", NODES)
        # In the moment between two of them, it is worth another try.
        (settings.service_account_dir / "token").unlink()
        with pytest.raises(ClusterUnreachable):
            await kubernetes.get("list nodes", NODES)


async def test_nobody_is_believed_without_the_right_certificate(
    server: KubernetesServer, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    other = Authority(tmp_path / "other", "other-ca")
    settings = in_cluster(server)
    (settings.service_account_dir / "ca.crt").write_bytes(other.path.read_bytes())
    error = await failure(settings, server.environment)
    assert isinstance(error, ClusterUnreachable)
    assert "certificate" in str(error).lower()
    # Whoever it was, it has not seen the token.
    assert server.requests == []
    wrong = server.kubeconfig()
    config = json.loads(wrong.read_text())
    config["clusters"][0]["cluster"]["tls-server-name"] = "another.example"
    wrong.write_text(json.dumps(config))
    assert isinstance(await failure(Cluster(kubeconfig=wrong)), ClusterUnreachable)


SECRET = "s3cr3t-0f-the-t35t"

BAD: dict[str, dict[str, Any]] = {
    "no TLS verification": {"cluster": {"insecure-skip-tls-verify": True}},
    "no TLS": {"cluster": {"server": "http://127.0.0.1:1"}},
    "password in the URL": {"cluster": {"server": f"https://me:{SECRET}@127.0.0.1:1"}},
    "no server": {"cluster": {"server": None}},
    "a proxy": {"cluster": {"proxy-url": "http://127.0.0.1:1"}},
    "a CA that is none": {"cluster": {"certificate-authority-data": "bm9uZQ=="}},
    "a CA that is no base64": {"cluster": {"certificate-authority-data": "%"}},
    "a program": {"user": {"exec": {"command": "touch", "args": ["/tmp/x"]}}},
    "a provider": {"user": {"auth-provider": {"name": "gcp"}}},
    "a password": {"user": {"username": "me", "password": SECRET}},
    "a token of two lines": {"user": {"token": f"{SECRET}\r\nX-Evil: 1"}},
    "a token that is a number": {"user": {"token": 7}},
    "a token file that is missing": {"user": {"tokenFile": "nowhere"}},
    "a certificate alone": {"user": {"client-certificate": "c"}},
}


@pytest.mark.parametrize("change", BAD.values(), ids=BAD)
async def test_kubeconfigs_that_are_refused(
    server: KubernetesServer, change: dict[str, Any]
) -> None:
    file = server.kubeconfig()
    config = json.loads(file.read_text())
    config["clusters"][0]["cluster"] |= change.get("cluster", {})
    config["users"][0]["user"] |= change.get("user", {})
    file.write_text(json.dumps(config))
    error = await failure(Cluster(kubeconfig=file))
    assert isinstance(error, InvalidArgument)
    assert SECRET not in str(error)
    assert server.requests == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        "current-context: nowhere",
        f"token: '{SECRET}",
        "\0",
        "a: &a [*a]",
        "[" * 9999,
    ],
)
async def test_files_that_are_no_kubeconfig(tmp_path: Path, text: str) -> None:
    file = tmp_path / "kubeconfig"
    file.write_text(text)
    error = await failure(Cluster(kubeconfig=file))
    assert isinstance(error, InvalidArgument)
    assert SECRET not in str(error)
    assert isinstance(await failure(Cluster(kubeconfig=tmp_path / "none")), InvalidArgument)


async def test_a_pod_without_a_service_account(server: KubernetesServer) -> None:
    assert "KUBERNETES_SERVICE_HOST" in str(await failure(in_cluster(server)))
    settings = in_cluster(server)
    for name in ("token", "ca.crt"):
        (settings.service_account_dir / name).unlink()
        assert name in str(await failure(settings, server.environment))
        server.service_account()


async def test_what_answers_become(server: KubernetesServer) -> None:
    async with Kubernetes.connect(in_cluster(server), server.environment) as kubernetes:
        with pytest.raises(ClusterRefused) as refused:
            await kubernetes.get("read node x", path_of("api/v1/nodes", "x/../node-a"))
        assert (refused.value.status, refused.value.reason) == (404, "NotFound")
        assert str(refused.value) == 'cannot read node x: nodes "x/../node-a" not found'
        for code in (429, 500, 503, 504):
            server.fail("list", "nodes", Refusal(code, "", "later", retry_after=7))
            with pytest.raises(ClusterUnreachable) as later:
                await kubernetes.get("list nodes", NODES)
            assert later.value.retry_after == 7
        # What only reads is tried once more where a connection is found to be closed.
        server.fail("list", "nodes", None, times=2)
        with pytest.raises(ClusterUnreachable):
            await kubernetes.get("list nodes", NODES)
        server.stop()
        with pytest.raises(ClusterUnreachable):
            await kubernetes.get("list nodes", NODES)
        server.start()
        assert await kubernetes.get("list nodes", NODES)


async def test_objects_are_made_and_deleted(server: KubernetesServer) -> None:
    pod = {"metadata": {"name": "web"}, "spec": {"containers": [{"name": "a", "image": "i"}]}}
    async with Kubernetes.connect(in_cluster(server), server.environment) as kubernetes:
        made = await kubernetes.create("create pod web", PODS, pod)
        path = path_of("api/v1/namespaces", "default", "pods", "web")
        with pytest.raises(ClusterRefused) as other:
            await kubernetes.delete("delete pod web", path, "another")
        assert other.value.status == 409
        await kubernetes.delete("delete pod web", path, made["metadata"]["uid"])
        assert server.pods() == []
        # Whoever deletes it twice wants it gone, and it is.
        await kubernetes.delete("delete pod web", path, made["metadata"]["uid"])


async def test_changes_are_watched(server: KubernetesServer) -> None:
    async with Kubernetes.connect(in_cluster(server), server.environment) as kubernetes:
        listed = await kubernetes.get("list nodes", NODES)
        version = listed["metadata"]["resourceVersion"]
        watching = kubernetes.watch("watch nodes", NODES, version)
        first = asyncio.ensure_future(anext(watching))
        server.store.change("nodes", "", "node-a", lambda node: node.update(spec={"x": 1}))
        seen = await first
        assert (seen.type, seen.object["spec"]) == ("MODIFIED", {"x": 1})
        server.store.remove("nodes", "", "node-a")
        assert (await anext(watching)).type == "DELETED"
        # One that the server ends, in the middle of it.
        ending = asyncio.ensure_future(anext(watching))
        await asyncio.to_thread(server.stop)
        with pytest.raises((ClusterUnreachable, StopAsyncIteration)):
            await ending
        server.start()
        server.store.compact()
        with pytest.raises(ClusterRefused) as gone:
            await anext(kubernetes.watch("watch nodes", NODES, version))
        assert gone.value.status == 410


async def test_nothing_of_it_is_logged(
    server: KubernetesServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server.store.add("nodes", "", {"metadata": {"name": "b", "annotations": {"x": SECRET}}})
    assert await names(in_cluster(server), {**os.environ, **server.environment})
    assert SECRET not in caplog.text
    assert server.token not in caplog.text
