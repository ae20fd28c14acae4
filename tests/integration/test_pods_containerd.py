"""Pods of a real containerd, made through its CRI: found, told apart, seen to change and to go."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.errors import PodAmbiguous, PodNotFound, TargetNotCheckpointable
from agent.host.overlay import writable_layer
from agent.host.runc import load
from agent.pods import FoundPod, PodContainer, find_pod, list_pods
from agent.targets import PodRef, Volume
from bench.leftovers import cgroup_paths, mounts_below
from tests.servers.containerd import ContainerdServer, containerd_server
from tests.servers.containerd_leftovers import networks, shim_sockets, shims
from tests.servers.cri_pods import ContainerSpec, Pod
from tests.waiting import eventually

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def server() -> Iterator[ContainerdServer]:
    if os.geteuid() != 0:
        pytest.skip("containers need root")
    with containerd_server() as made:
        yield made


@pytest.fixture
def containerd(server: ContainerdServer) -> Iterator[ContainerdServer]:
    """The module's server, without pods."""
    yield server
    server.remove_pods()


def _find(pod: Pod) -> FoundPod:
    return find_pod(PodRef(uid=pod.uid), [pod.server.runc_root])


def _ref(pod: Pod) -> PodRef:
    return PodRef(pod.uid, pod.namespace, pod.name)


def _container(pod: Pod, name: str) -> PodContainer:
    return next(each for each in _find(pod).containers if each.name == name)


def test_two_pods_of_two_containers(containerd: ContainerdServer) -> None:
    specs = [
        ContainerSpec("app", env={"CHECKPOINT_NAME": "nightly"}, volumes={"cache": "/cache"}),
        ContainerSpec("side", volumes={"cache": "/shared", "work": "/work"}),
    ]
    web = containerd.run_pod("web-1", containers=specs)
    other = containerd.run_pod("web-10", containers=[ContainerSpec("app")])

    assert [pod.ref for pod in list_pods([containerd.runc_root])] == [_ref(web), _ref(other)]
    found = _find(web)
    assert found == find_pod(PodRef(namespace="default", name="web-1"), [containerd.runc_root])
    assert (found.runtime, found.sandbox_id) == ("containerd", web.sandbox_id)
    assert {each.name: each.target.container for each in found.containers} == web.containers
    app, side = found.containers
    assert (app.checkpoint_name, side.checkpoint_name) == ("nightly", None)
    assert (app.status, side.status) == ("running", "running")
    assert app.image.startswith("localhost/checkpoint-agent/workloads")
    assert app.bundle == web.bundle("app")
    assert found.volumes == (
        Volume("cache", web.volume("cache"), "empty-dir"),
        Volume("work", web.volume("work"), "empty-dir"),
        Volume("shm", web.shm(), "shm"),
    )
    assert _find(other).volumes == (Volume("shm", other.shm(), "shm"),)


def test_what_a_container_writes_is_where_the_agent_looks(containerd: ContainerdServer) -> None:
    specs = [ContainerSpec("app", volumes={"cache": "/cache"}), ContainerSpec("side")]
    pod = containerd.run_pod("writer", containers=specs)
    script = "echo root > /tmp/a; echo memory > /dev/shm/b; echo volume > /cache/c; rm /bin/ps"
    pod.execute("app", "/bin/sh", "-c", script)

    volumes = {volume.name: volume.source for volume in _find(pod).volumes}
    assert (volumes["shm"] / "b").read_text() == "memory\n"
    assert (volumes["cache"] / "c").read_text() == "volume\n"
    assert pod.execute("side", "/bin/cat", "/dev/shm/b") == "memory\n"
    app, side = (_layer(_container(pod, name)) for name in ("app", "side"))
    assert (app / "tmp" / "a").read_text() == "root\n"
    assert (app / "bin" / "ps").is_char_device()  # how overlay notes what was deleted
    assert not (side / "tmp").exists()


def _layer(container: PodContainer) -> Path:
    """The writable layer, which has to be the same from both of the places where it is looked for:
    here, and in the container's own mount table.
    """
    pid = load(container.target).pid
    found = writable_layer(container.bundle, pid)
    assert found is not None
    assert writable_layer(Path("/nonexistent"), pid) == found
    return found


def test_a_paused_container_is_still_found(containerd: ContainerdServer) -> None:
    pod = containerd.run_pod("paused", containers=[ContainerSpec("app"), ContainerSpec("side")])
    runc = ["runc", "--root", str(containerd.runc_root)]
    subprocess.run([*runc, "pause", pod.containers["app"]], check=True)
    try:
        assert [each.status for each in _find(pod).containers] == ["paused", "running"]
    finally:
        subprocess.run([*runc, "resume", pod.containers["app"]], check=True)
    before = pod.counter("app")
    eventually(lambda: pod.counter("app") > before, "counting on")
    assert [each.status for each in _find(pod).containers] == ["running", "running"]


def test_a_container_that_restarts(containerd: ContainerdServer) -> None:
    pod = containerd.run_pod("restarting", containers=[ContainerSpec("app"), ContainerSpec("side")])
    old = pod.containers["app"]
    new = pod.restart("app")
    assert new != old
    assert _container(pod, "app").target.container == new


def test_a_pod_whose_containers_have_stopped(containerd: ContainerdServer) -> None:
    pod = containerd.run_pod("stopping")
    pod.stop("main")
    with pytest.raises(TargetNotCheckpointable, match="no container of it runs"):
        _find(pod)
    assert [found.containers for found in list_pods([containerd.runc_root])] == [()]


def test_a_second_sandbox_of_the_same_pod(containerd: ContainerdServer) -> None:
    old = containerd.run_pod("again")
    new = containerd.run_pod("again", uid=old.uid, attempt=1)
    found = _find(old)
    assert found.sandbox_id == new.sandbox_id
    assert [each.target.container for each in found.containers] == [new.containers["main"]]


def test_a_name_that_two_pods_have(containerd: ContainerdServer) -> None:
    one = containerd.run_pod("twin")
    two = containerd.run_pod("twin", attempt=1)
    ref = PodRef(namespace="default", name="twin")
    with pytest.raises(PodAmbiguous) as raised:
        find_pod(ref, [containerd.runc_root])
    assert one.uid in str(raised.value)
    assert two.uid in str(raised.value)
    one.remove()
    assert find_pod(ref, [containerd.runc_root]).ref.uid == two.uid


def test_a_pod_that_is_removed(containerd: ContainerdServer) -> None:
    pod = containerd.run_pod("going")
    assert _find(pod).ref == _ref(pod)
    pod.remove()
    with pytest.raises(PodNotFound, match=pod.uid):
        _find(pod)
    assert list_pods([containerd.runc_root]) == []


@pytest.mark.parametrize("killed", [False, True], ids=["in order", "containerd killed"])
def test_nothing_is_left_of_a_server(killed: bool) -> None:
    """The tests' own fixture: whatever happens to it, the machine is as it was."""
    with containerd_server() as server:
        pod = server.run_pod("left", containers=[ContainerSpec("app", volumes={"v": "/v"})])
        pid = load(_find(pod).containers[0].target).pid
        assert mounts_below(server.directory)
        assert shims(server.directory)
        namespaces = networks(server.name)
        assert [path.exists() for path in namespaces] == [True]
        assert cgroup_paths(server.name)
        sockets = shim_sockets(server.directory)
        assert all(path.exists() for path in sockets)
        assert sockets
        if killed:
            os.kill(server.pid, signal.SIGKILL)
    assert not server.directory.exists()
    assert not list(mounts_below(server.directory))
    assert not shims(server.directory)
    assert not cgroup_paths(server.name)
    assert not any(path.exists() for path in sockets)
    assert not Path(f"/sys/class/net/{server.name}").exists()
    assert not list(Path("/var/lib/cni/results").glob(f"*{pod.sandbox_id}*"))
    assert [path.exists() for path in namespaces] == [False]
    assert not Path(f"/proc/{pid}/exe").exists()


def test_nothing_is_left_of_a_server_that_does_not_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "bin" / "containerd"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho no such luck\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    parent = tmp_path / "servers"
    parent.mkdir()
    with pytest.raises(RuntimeError, match="no such luck"), containerd_server(parent):
        pass
    assert not list(parent.iterdir())
