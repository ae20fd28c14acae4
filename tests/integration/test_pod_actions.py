"""Whole pods of a real containerd, checkpointed because a message asked for it."""

from __future__ import annotations

import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.config import find_tools
from agent.manifest import Manifest, from_bytes
from bench.bundle import memory
from bench.reports import wait_until
from tests.cli_process import only_document, run_cli
from tests.fakes.hooked_criu import hooked_criu
from tests.nodes import Json, Node, node_on
from tests.pod_checks import (
    assert_pod_unharmed,
    forget_gaps,
    longest_gap,
    named,
    stood_still,
)
from tests.servers.containerd import ContainerdServer
from tests.servers.cri_pods import ContainerSpec, Pod
from tests.servers.nats import NatsServer
from tests.stalls import stalls

pytestmark = [pytest.mark.root, pytest.mark.criu]


@pytest.fixture
def pod(containerd: ContainerdServer) -> Pod:
    """Two containers that count and share a volume."""
    specs = [
        ContainerSpec("app", env={"CHECKPOINT_NAME": "nightly"}, volumes={"cache": "/cache"}),
        ContainerSpec("side", volumes={"cache": "/shared"}),
    ]
    return containerd.run_pod("web-1", containers=specs)


@pytest.fixture
def node(tmp_path: Path, containerd: ContainerdServer, broker: NatsServer) -> Iterator[Node]:
    with node_on(tmp_path, broker, runc_roots=[containerd.runc_root]) as made:
        yield made


def manifest_of(outcome: Json) -> Manifest:
    """The manifest that a `ready` event points to."""
    path = Path(outcome["path"].removeprefix("file://")) / "manifest.json"
    return from_bytes(path.read_bytes(), str(path))


def tar_of(directory: Path, *names: str) -> dict[str, tarfile.TarInfo]:
    """What an exported tar holds, by path."""
    with tarfile.open(directory.joinpath(*names)) as archive:
        return {member.name.removeprefix("./"): member for member in archive.getmembers()}


def test_done_when(
    tmp_path: Path, containerd: ContainerdServer, broker: NatsServer, pod: Pod
) -> None:
    criu = hooked_criu(tmp_path / "criu", find_tools().criu, "post-dump")
    env = {"CHECKPOINT_AGENT_CRIU": str(criu.program)}
    with node_on(tmp_path, broker, runc_roots=[containerd.runc_root], env=env) as node:
        forget_gaps(pod)
        with stalls() as machine:
            node.ask("a-1", checkpoint=named(pod))
            wait_until(criu.reached, "the dump")
            began = time.monotonic()
            wait_until(stood_still(pod, 1.0), "the pod standing still")
            held = time.monotonic() - began
            criu.release()
            outcome = node.ready("a-1")
            gap = longest_gap(pod)

        assert held <= outcome["frozenSeconds"]
        assert held <= gap
        # What the scheduler adds to a pause that long is far below half of it, or happens to all.
        assert gap - machine.longest <= 1.5 * outcome["frozenSeconds"]
        assert_pod_unharmed(pod)
        assert node.states("a-1") == ["initialized", "processing", "checkpoint_created", "ready"]
        last = node.events("a-1")[-1]
        assert last["pod"] == {"uid": pod.uid, "namespace": "default", "name": "web-1"}
        assert (last["cluster"], last["node"], last["type"]) == ("test", "node", "checkpoint_pod")
        assert {"prepare", "dump", "thaw", "commit"} <= outcome["phases"].keys()
        assert min(outcome["phases"].values()) >= 0
        assert_whole(outcome, pod)
        node.wait_acknowledged()
        node.assert_idle()


def assert_whole(outcome: Json, pod: Pod) -> None:
    """The checkpoint is one of this pod, and every byte of it can be read."""
    verified = only_document(run_cli("verify", outcome["path"], "-o", "json").stdout)
    assert verified["chunks"] == outcome["chunks"]
    manifest = manifest_of(outcome)
    assert manifest.pod is not None
    assert manifest.pod.model_dump() == {"uid": pod.uid, "namespace": "default", "name": "web-1"}
    assert {one.name: one.target for one in manifest.members} == pod.containers
    assert {volume.name for volume in manifest.volumes} == {"cache", "shm"}
    assert (manifest.name, manifest.kind) == ("nightly", "simple")
    assert sorted(outcome["containers"]) == sorted(pod.containers)
    assert manifest.frozen_seconds == pytest.approx(outcome["frozenSeconds"])


@pytest.mark.parametrize("kind", ["simple", "rootfs", "rootfsonly"])
def test_files_are_in_it(node: Node, pod: Pod, tmp_path: Path, kind: str) -> None:
    script = "echo root >/tmp/a; echo memory >/dev/shm/b; echo volume >/cache/c; rm /bin/ps"
    pod.execute("app", "/bin/sh", "-c", script)
    node.ask("a-1", checkpoint={"pod": {"uid": pod.uid}, "kind": kind, "name": "by hand"})
    outcome = node.ready("a-1")
    assert_pod_unharmed(pod)

    assert run_cli("verify", outcome["path"]).returncode == 0
    manifest = manifest_of(outcome)
    assert (manifest.kind, manifest.name) == (kind, "by hand")
    exported = tmp_path / "exported"
    done = run_cli("export", outcome["path"], str(exported))
    assert done.returncode == 0, done.stderr
    processes = {path.parent.name for path in exported.glob("*/core-*.img")}
    assert processes == (set() if kind == "rootfsonly" else {"app", "side"})
    if kind != "simple":
        layer = tar_of(exported, "app", "rootfs-diff.tar")
        assert layer["tmp/a"].size == len("root\n")
        assert layer["bin/ps"].ischr()  # how overlay notes what was deleted
        assert "tmp/a" not in tar_of(exported, "side", "rootfs-diff.tar")
    if kind != "rootfsonly":
        assert tar_of(exported, "volumes", "shm.tar")["b"].size == len("memory\n")
        assert tar_of(exported, "volumes", "cache.tar")["c"].size == len("volume\n")


def test_overrides_apply(node: Node, pod: Pod) -> None:
    elsewhere = node.daemon.store / "elsewhere"
    overrides = {"compression": "none", "streams": 2, "directory": str(elsewhere)}
    node.ask("a-1", checkpoint={**named(pod), "overrides": overrides})
    outcome = node.ready("a-1")
    assert (outcome["codec"], outcome["streams"]) == ("none", 2)
    assert outcome["path"].startswith(f"file://{elsewhere}/")
    assert run_cli("verify", outcome["path"]).returncode == 0
    assert_pod_unharmed(pod)


def test_a_container_that_was_restarted_is_taken_as_it_is_now(node: Node, pod: Pod) -> None:
    pod.restart("side")
    node.ask("a-1", checkpoint=named(pod))
    outcome = node.ready("a-1")
    assert {one.name: one.target for one in manifest_of(outcome).members} == pod.containers


def test_two_pods_at_the_same_time(node: Node, pod: Pod, containerd: ContainerdServer) -> None:
    other = containerd.run_pod("web-10", containers=[ContainerSpec("app", workload=memory(8)),
                                                     ContainerSpec("side")])  # fmt: skip
    for number, each in enumerate((pod, other)):
        node.ask(f"a-{number}", checkpoint=named(each))
    for number, each in enumerate((pod, other)):
        found = manifest_of(node.ready(f"a-{number}"))
        assert {one.target for one in found.members} == set(each.containers.values())
        assert_pod_unharmed(each)
