"""Pods that ask for a checkpoint and cannot have it: they start cold, and the reason is kept."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import grpc
import pytest

from agent.config import find_tools
from agent.host.network import is_locked
from bench.leftovers import mounts_below
from tests.daemons import Tables
from tests.fakes.hooked_criu import HookedCriu, hooked_criu
from tests.networks import filter_rules
from tests.pod_checks import network_of
from tests.restore_nodes import Handler, RestoreNode, asking, restore_handler, restore_node
from tests.servers.cri_pods import ContainerSpec, Pod
from tests.servers.moto import Fault, MotoServer
from tests.waiting import PATIENCE, eventually

pytestmark = [pytest.mark.root, pytest.mark.criu]

VOLUMES = {"work": "/work"}


@pytest.fixture(scope="module")
def handler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Handler]:
    if os.geteuid() != 0:
        pytest.skip("containers need root")
    with restore_handler(tmp_path_factory.mktemp("handler")) as made:
        yield made


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store for all of them."""
    return tmp_path_factory.mktemp("checkpoints")


@pytest.fixture(scope="module")
def path(handler: Handler, checkpoints: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A checkpoint there, with files everywhere, of a pod that is gone."""
    tables: Tables = {"storage": {"store": str(checkpoints)}}
    with restore_node(handler, tmp_path_factory.mktemp("first"), tables) as node:
        _start(node)
        return _checkpointed(node)


@pytest.fixture
def node(handler: Handler, tmp_path: Path, checkpoints: Path) -> Iterator[RestoreNode]:
    """A node that has that store, and allows another one."""
    tables: Tables = {"storage": {"store": str(checkpoints), "roots": [str(tmp_path / "spoiled")]}}
    with restore_node(handler, tmp_path, tables) as made:
        _start(made)
        yield made


def _start(node: RestoreNode) -> None:
    node.daemon.start()
    node.daemon.wait_ready()


def _shell(pod: Pod, container: str, script: str) -> str:
    return pod.execute(container, "/bin/sh", "-c", script).strip()


def _checkpointed(node: RestoreNode) -> str:
    specs = [ContainerSpec(name, volumes=VOLUMES) for name in ("app", "side")]
    pod = node.run("before", specs)
    for name in pod.containers:
        _shell(pod, name, "echo left > /note; echo left > /work/note; echo left > /dev/shm/note")
    return node.checkpoint(pod)


def _is_cold(node: RestoreNode, pod: Pod, reason: str, container: str = "app") -> None:
    """It runs, has begun anew, knows nothing of the checkpoint, and nothing was left behind."""
    record = node.record(pod, container)
    assert record["state"] == "cold"
    assert reason in record["reason"]
    # Who comes back has the environment that it had, without this.
    assert "CHECKPOINT_RESTORE" in _shell(pod, container, "cat /proc/1/environ")
    left = _shell(pod, container, "ls -a /note /work /dev/shm 2>/dev/null || true")
    assert "note" not in left
    assert ".checkpoint-agent" not in left
    eventually(lambda: node.operations() == [], "the operation being over")
    assert _beside_layers(node) == []


def _pid(pod: Pod, container_id: str) -> int:
    state = pod.server.runc_root / container_id / "state.json"
    return int(json.loads(state.read_text())["init_process_pid"])


def _beside_layers(node: RestoreNode) -> list[Path]:
    """Layers that were about to be exchanged."""
    snapshots = node.handler.server.directory / "root/io.containerd.snapshotter.v1.overlayfs"
    return list(snapshots.glob("snapshots/*/fs.*"))


def _path(path: str) -> Path:
    return Path(path.removeprefix("file://"))


def test_what_there_is_not(node: RestoreNode) -> None:
    store = node.daemon.tables["storage"]["store"]
    reasons = {
        "nobody": "no checkpoint at the name 'nobody'",
        "/etc": "is not at or below the node's store",
        "s3://elsewhere/it": "is not at or below the node's store",
        "../../etc/passwd": "no checkpoint at the name",
        f"{store}/not-there": "no checkpoint at",
    }
    for number, (wanted, reason) in enumerate(reasons.items()):
        pod = node.run(f"cold-{number}", [asking("app", wanted, volumes=VOLUMES)])
        _is_cold(node, pod, reason)


def test_a_checkpoint_of_another_namespace(node: RestoreNode, path: str) -> None:
    pod = node.run("thief", [asking("app", path, volumes=VOLUMES)], namespace="other")
    _is_cold(node, pod, "is no checkpoint of namespace other")


def _spoiled(node: RestoreNode, path: str) -> Path:
    """A copy that can be spoiled."""
    copy = node.daemon.directory / "spoiled" / _path(path).name
    shutil.copytree(_path(path), copy)
    return copy


def test_a_damaged_checkpoint(node: RestoreNode, path: str) -> None:
    copy = _spoiled(node, path)
    for stream in copy.glob("stream-*"):
        data = bytearray(stream.read_bytes())
        data[len(data) // 2] ^= 1
        stream.write_bytes(data)
    pod = node.run("cold", [asking("app", str(copy), volumes=VOLUMES)])
    _is_cold(node, pod, "is damaged")


def test_a_container_that_the_checkpoint_has_not(node: RestoreNode, path: str) -> None:
    pod = node.run("more", [asking("new", path), asking("app", path, volumes=VOLUMES)])
    record = node.record(pod, "new")
    assert (record["state"], record["reason"]) == (
        "cold", "container: 'new' is none of app, side",
    )  # fmt: skip
    assert "CHECKPOINT_RESTORE" in _shell(pod, "new", "cat /proc/1/environ")
    assert node.record(pod, "app")["state"] == "restored"


def test_one_decision_for_a_pod(node: RestoreNode, path: str) -> None:
    specs = [asking("app", "nobody", volumes=VOLUMES), asking("side", path, volumes=VOLUMES)]
    pod = node.run("cold", specs)
    _is_cold(node, pod, "no checkpoint at the name 'nobody'")
    _is_cold(node, pod, "the pod was started cold: no checkpoint", "side")


def test_a_restart_in_the_same_sandbox(node: RestoreNode, path: str) -> None:
    pod = node.run("again", [asking("app", path, volumes=VOLUMES)])
    _shell(pod, "app", "cat /note")
    pod.restart("app")
    assert _shell(pod, "app", "[ -e /note ] || echo fresh") == "fresh"
    record = node.record(pod, "app")
    assert record["state"] == "restored"
    assert "a restart" in record["reason"]


def test_an_agent_that_is_away_and_comes_back(node: RestoreNode, path: str) -> None:
    node.daemon.stop()
    specs = [asking("app", path, volumes=VOLUMES), asking("side", path, volumes=VOLUMES)]
    pod = node.run("cold", specs[:1])
    _is_cold(node, pod, "no agent listens")
    _start(node)
    pod.start(specs[1])
    _is_cold(node, pod, "the pod was started cold: no agent listens", "side")


@pytest.fixture
def held(
    handler: Handler, tmp_path: Path, checkpoints: Path, path: str
) -> Iterator[tuple[RestoreNode, HookedCriu]]:
    """A node whose CRIU stops in the middle of a restore."""
    criu = hooked_criu(tmp_path / "criu", find_tools().criu, "pre-resume")
    env = {"CHECKPOINT_AGENT_CRIU": str(criu.program)}
    tables: Tables = {
        "storage": {"store": str(checkpoints)},
        "restore": {"limit_seconds": 3.0},
    }
    with restore_node(handler, tmp_path, tables, env) as made, ExitStack() as cleanup:
        cleanup.callback(criu.release)
        _start(made)
        yield made, criu


def test_an_agent_that_is_killed_in_the_middle(
    held: tuple[RestoreNode, HookedCriu], path: str
) -> None:
    node, criu = held

    def kill() -> None:
        eventually(criu.reached, "CRIU being held")
        node.daemon.kill()

    killer = threading.Thread(target=kill)
    killer.start()
    pod = node.run("cold", [asking("app", path, volumes=VOLUMES)])
    killer.join()
    _start(node)
    _is_cold(node, pod, "the agent gave it up")
    assert not Path(f"/proc/{criu.pid()}").exists()


def _clients(node: RestoreNode) -> list[int]:
    """Programs that stand in for runc and talk to this node's daemon."""
    socket = os.fsencode(node.daemon.directory / "restore.sock")
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if socket in entry.read_bytes().split(b"\0"):
                found.append(int(entry.parent.name))
    return found


def test_a_client_that_is_killed_in_the_middle(
    held: tuple[RestoreNode, HookedCriu], path: str
) -> None:
    node, criu = held

    def kill() -> None:
        eventually(criu.reached, "CRIU being held")
        for pid in _clients(node):
            os.kill(pid, signal.SIGKILL)
        criu.release()

    killer = threading.Thread(target=kill)
    killer.start()
    pod = node.run("failing", [])
    with pytest.raises(grpc.RpcError):
        pod.begin(asking("app", path, volumes=VOLUMES))
    killer.join()
    eventually(lambda: node.operations() == [], "the operation being over")
    assert node.record(pod, "app")["state"] == "failed"
    assert list(node.handler.server.runc_root.iterdir()) == [
        node.handler.server.runc_root / pod.sandbox_id
    ]
    assert os.listdir(pod.volume("work")) == []
    assert not Path(f"/proc/{criu.pid()}").exists()


def test_what_takes_too_long(held: tuple[RestoreNode, HookedCriu], path: str) -> None:
    node, criu = held
    pod = node.run("cold", [asking("app", path, volumes=VOLUMES)])
    _is_cold(node, pod, "not done within 3 s")
    assert criu.reached()
    assert not Path(f"/proc/{criu.pid()}").exists()


def test_a_store_that_hangs(handler: Handler, tmp_path: Path, moto: MotoServer) -> None:
    env = {"AWS_ACCESS_KEY_ID": moto.key, "AWS_SECRET_ACCESS_KEY": moto.secret}
    tables: Tables = {
        "storage": {"store": moto.url("checkpoints", f"/{tmp_path.name}")},
        "restore": {"limit_seconds": 2.0},
    }
    answered = threading.Event()
    with restore_node(handler, tmp_path, tables, env) as node, ExitStack() as cleanup:
        _start(node)
        path = _checkpointed(node)
        cleanup.callback(answered.set)
        moto.faults.append(Fault("GET", "", "", path="stream-", before=lambda _: _wait(answered)))
        pod = node.run("cold", [asking("app", path, volumes=VOLUMES)])
        assert "not done within 2 s" in node.record(pod, "app")["reason"]
        answered.set()
        _is_cold(node, pod, "not done within 2 s")


def _wait(event: threading.Event) -> None:
    event.wait(PATIENCE)


def test_a_criu_that_fails(handler: Handler, tmp_path: Path, checkpoints: Path, path: str) -> None:
    criu = hooked_criu(tmp_path / "criu", find_tools().criu, "post-restore", "fail")
    env = {"CHECKPOINT_AGENT_CRIU": str(criu.program)}
    tables: Tables = {"storage": {"store": str(checkpoints)}}
    with restore_node(handler, tmp_path, tables, env) as node:
        _start(node)
        pod = node.run("cold", [asking("app", path, volumes=VOLUMES)])
        assert criu.reached()
        _is_cold(node, pod, "restore of app failed")
        assert filter_rules(network_of(pod)) == []
        assert list(mounts_below(handler.server.runc_root)) == []
        # CRIU keeps packets out of the pod while it restores.
        network = Path(f"/proc/{_pid(pod, pod.sandbox_id)}/ns/net")
        assert not asyncio.run(is_locked(network))


def test_a_later_one_that_cannot_be_restored_fails(node: RestoreNode, path: str) -> None:
    copy = _spoiled(node, path)
    side = asking("side", str(copy), volumes=VOLUMES)
    pod = node.run("torn", [asking("app", str(copy), volumes=VOLUMES)])
    manifest = copy / "manifest.json"
    manifest.rename(manifest.with_name("away"))
    with pytest.raises(grpc.RpcError, match="no checkpoint at"):
        pod.start(side)
    assert node.record(pod, "side")["state"] == "failed"
    # The kubelet tries again.
    manifest.with_name("away").rename(manifest)
    pod.start(side)
    assert node.record(pod, "side")["state"] == "restored"


def test_no_cold_start_where_none_is_wanted(handler: Handler, tmp_path: Path) -> None:
    with restore_node(handler, tmp_path, {"restore": {"fallback": "fail"}}) as node:
        _start(node)
        with pytest.raises(grpc.RpcError, match="no checkpoint at the name 'nobody'"):
            node.run("none", [asking("app", "nobody")])
        node.daemon.stop()
        with pytest.raises(grpc.RpcError, match="no agent listens"):
            node.run("none-2", [asking("app", "nobody")])
