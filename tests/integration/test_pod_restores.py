"""Pods of a real containerd that come back from checkpoints, in other pods, through its CRI."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.bundle import SEGMENT, service
from bench.reports import Segment
from tests.restore_nodes import (
    HANDLER,
    Handler,
    RestoreNode,
    asking,
    restore_handler,
    restore_node,
)
from tests.servers.cri_pods import ContainerSpec, Pod
from tests.waiting import eventually

pytestmark = [pytest.mark.root, pytest.mark.criu]

# Prints what it has counted in its memory, and ends when it is told to.
TICKING = (
    "/bin/sh",
    "-c",
    "trap 'exit 9' TERM; i=0;"
    "while ! [ -e /end ]; do i=$((i + 1)); echo tick $i; sleep 0.1; done; exit 7",
)


@pytest.fixture(scope="module")
def handler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Handler]:
    if os.geteuid() != 0:
        pytest.skip("containers need root")
    with restore_handler(tmp_path_factory.mktemp("handler")) as made:
        yield made


@pytest.fixture
def node(handler: Handler, tmp_path: Path) -> Iterator[RestoreNode]:
    with restore_node(handler, tmp_path) as made:
        made.daemon.start()
        made.daemon.wait_ready()
        yield made


def _shell(pod: Pod, container: str, script: str) -> str:
    return pod.execute(container, "/bin/sh", "-c", script).strip()


def _pid(pod: Pod, container: str) -> int:
    state = pod.server.runc_root / pod.containers.get(container, container) / "state.json"
    return int(json.loads(state.read_text())["init_process_pid"])


def _namespace(pid: int, kind: str) -> str:
    return os.readlink(f"/proc/{pid}/ns/{kind}")


def _mounted(pod: Pod, container: str) -> dict[str, str]:
    """What lies at each mount point of a container."""
    lines = Path(f"/proc/{_pid(pod, container)}/mountinfo").read_text().splitlines()
    return {line.split()[4]: line.split()[3] for line in lines}


def _address(pod: Pod, container: str) -> str:
    words = [
        "nsenter",
        "--net",
        "-t",
        str(_pid(pod, container)),
        "ip",
        "-4",
        "addr",
        "show",
        "eth0",
    ]
    shown = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    found = re.search(r"inet ([\d.]+)/", shown)
    assert found, shown
    return found[1]


def test_a_pod_comes_back_in_another_pod_and_that_one_in_a_third(node: RestoreNode) -> None:
    volumes = {"work": "/work"}
    first = node.run("web", [ContainerSpec("app", volumes=volumes), ContainerSpec("side")])
    _shell(first, "app", "mkdir /made; echo new > /made/file; echo changed > /bin/cat.1")
    _shell(first, "app", "rm /bin/ps; echo volume > /work/file; echo shared > /dev/shm/file")
    _shell(first, "side", "echo aside > /note")
    pod, counted = first, {name: first.counter(name) for name in first.containers}
    for number in (1, 2):
        path = node.checkpoint(pod)
        gone = _address(pod, "app")
        pod.remove()
        name = f"web-{number}"
        pod = node.run(name, [asking("app", path, volumes=volumes), asking("side", path)])
        for container, before in counted.items():
            assert pod.counter(container) >= before
            counted[container] = pod.report(container).wait_beyond(1, pod.counter(container))
            assert node.record(pod, container)["state"] == "restored"
        # Files of the layer, of volumes and of what the containers share.
        assert _shell(pod, "app", "cat /made/file /bin/cat.1 /work/file") == "new\nchanged\nvolume"
        assert _shell(pod, "app", "[ -e /bin/ps ] || echo gone") == "gone"
        assert _shell(pod, "side", "cat /note /dev/shm/file") == "aside\nshared"
        # All that is the pod's is this pod's: its network, its name, its files.
        assert _shell(pod, "app", "cat /proc/sys/kernel/hostname") == name
        assert _address(pod, "app") != gone
        for kind in ("net", "ipc", "uts"):
            wanted = _namespace(_pid(pod, pod.sandbox_id), kind)
            assert {_namespace(_pid(pod, one), kind) for one in pod.containers} == {wanted}
        mounted = _mounted(pod, "app")
        for place in ("/etc/hosts", "/etc/hostname", "/etc/resolv.conf"):
            assert pod.sandbox_id in mounted[place]
        assert pod.uid in mounted["/dev/termination-log"]
        assert pod.uid in mounted["/work"]
    assert node.operations() == []


def _status(pod: Pod, container: str) -> dict[str, object]:
    request = {"container_id": pod.containers[container]}
    status: dict[str, object] = pod.server.cri.runtime("ContainerStatus", request)["status"]
    return status


def _log(pod: Pod, container: str) -> str:
    return (Path(pod.config["log_directory"]) / container / "0.log").read_text()


def test_logs_go_on_and_its_end_is_seen(node: RestoreNode) -> None:
    first = node.run("logging", [ContainerSpec("app", command=TICKING)])
    eventually(lambda: "tick 5\n" in _log(first, "app"), "ticks")
    path = node.checkpoint(first)
    first.remove()
    pod = node.run("logging-2", [asking("app", path, command=TICKING)])
    eventually(lambda: "tick" in _log(pod, "app"), "more ticks")
    assert "tick 1\n" not in _log(pod, "app")
    assert _status(pod, "app")["state"] == "CONTAINER_RUNNING"
    _shell(pod, "app", "echo > /end")
    eventually(lambda: _status(pod, "app")["state"] == "CONTAINER_EXITED", "its end")
    assert _status(pod, "app")["exit_code"] == 7


def test_it_can_be_stopped(node: RestoreNode) -> None:
    first = node.run("stopping", [ContainerSpec("app", command=TICKING)])
    eventually(lambda: "tick 2\n" in _log(first, "app"), "ticks")
    path = node.checkpoint(first)
    pod = node.run("stopping-2", [asking("app", path, command=TICKING)])
    pid = _pid(pod, "app")
    pod.server.cri.runtime("StopContainer", {"container_id": pod.containers["app"], "timeout": 10})
    status = _status(pod, "app")
    assert (status["state"], status["exit_code"]) == ("CONTAINER_EXITED", 9)
    assert not Path(f"/proc/{pid}").exists()


def _client(pod: Pod, script: str) -> list[str]:
    """A program in the network of a pod, with a connection to a server in it as ``it``."""
    connect = f"import socket; it = socket.create_connection(({_address(pod, 'app')!r}, 7777), 10);"
    network = ["nsenter", "--net", "-t", str(_pid(pod, "app"))]
    return [*network, "python3", "-c", connect + "it.sendall(b'x'); it.recv(1);" + script]


def test_it_listens_at_its_new_address_and_its_old_connections_are_closed(
    node: RestoreNode,
) -> None:
    first = node.run("serving", [ContainerSpec("app", workload=service(7777))])
    words = _client(first, "print('connected', flush=True); it.recv(1)")
    with subprocess.Popen(words, stdout=subprocess.PIPE) as connected:
        assert connected.stdout is not None
        assert connected.stdout.readline() == b"connected\n"
        path = node.checkpoint(first)
        first.remove()
        connected.kill()
    pod = node.run("serving-2", [asking("app", path, workload=service(7777))])
    assert node.record(pod, "app")["state"] == "restored"
    done = subprocess.run(_client(pod, "print('served')"), check=True, capture_output=True)
    assert done.stdout == b"served\n"


def test_by_its_name_the_newest_one_of_its_namespace(node: RestoreNode) -> None:
    env = {"CHECKPOINT_NAME": "nightly"}
    own = node.run("named", [ContainerSpec("app", env=env)])
    _shell(own, "app", "echo older > /note")
    node.checkpoint(own)
    _shell(own, "app", "echo newer > /note")
    node.checkpoint(own)
    other = node.run("named", [ContainerSpec("app", env=env)], namespace="other")
    _shell(other, "app", "echo secret > /note")
    node.checkpoint(other)
    pod = node.run(
        "named-2", [ContainerSpec("app")], annotations={"checkpoint-agent/restore": "nightly"}
    )
    assert _shell(pod, "app", "cat /note") == "newer"


def _again(pod: Pod, *specs: ContainerSpec) -> Pod:
    """The same pod in another sandbox, as after a restart of its machine."""
    annotations = pod.config["annotations"]
    pod.remove()
    return pod.server.run_pod(
        pod.name,
        pod.namespace,
        pod.uid,
        containers=specs,
        attempt=pod.config["metadata"]["attempt"] + 1,
        handler=HANDLER,
        annotations=annotations,
    )


def test_another_sandbox_of_the_same_pod_begins_with_what_the_pod_has(node: RestoreNode) -> None:
    volumes = {"work": "/work"}
    first = node.run("web", [ContainerSpec("app", volumes=volumes)])
    _shell(first, "app", "echo old > /work/file; echo old > /note")
    path = node.checkpoint(first)
    first.remove()
    spec = asking("app", path, volumes=volumes)
    pod = node.run("web-2", [spec])
    assert _shell(pod, "app", "cat /work/file") == "old"
    _shell(pod, "app", "echo new > /work/file; rm /note")
    for _ in range(2):
        pod = _again(pod, spec)
        assert "has run before" in node.record(pod, "app")["reason"]
        assert _shell(pod, "app", "cat /work/file; [ -e /note ] || echo cold") == "new\ncold"


def test_by_name_another_sandbox_goes_on_from_its_pods_newest(node: RestoreNode) -> None:
    spec = ContainerSpec("app", env={"CHECKPOINT_NAME": "nightly"})
    asked = {"checkpoint-agent/restore": "nightly"}
    pod = node.run("named", [spec], annotations=asked)
    assert node.record(pod, "app")["state"] == "cold"
    _shell(pod, "app", "echo since > /note")
    node.checkpoint(pod)
    pod = _again(pod, spec)
    assert node.record(pod, "app")["state"] == "restored"
    assert _shell(pod, "app", "cat /note") == "since"
    pod = _again(pod, spec)
    assert "is no later one of it" in node.record(pod, "app")["reason"]


def test_shared_memory_of_system_v_comes_back_with_the_one_who_uses_it(node: RestoreNode) -> None:
    first = node.run("segments", [ContainerSpec("app"), ContainerSpec("side", SEGMENT)])
    counted = first.report("side").read(Segment.COUNT)
    path = node.checkpoint(first)
    first.remove()
    specs = [asking("app", path), asking("side", path, workload=SEGMENT)]
    pod = node.run("segments-2", specs)
    assert [node.record(pod, name)["state"] for name in pod.containers] == ["restored"] * 2
    assert pod.report("side").read(Segment.COUNT) >= counted
    pod.report("side").wait_beyond(Segment.COUNT, pod.report("side").read(Segment.COUNT))


def test_shared_memory_of_system_v_that_two_containers_use(node: RestoreNode) -> None:
    first = node.run("sharing", [ContainerSpec(name, SEGMENT) for name in ("app", "side")])
    path = node.checkpoint(first)
    first.remove()
    specs = [asking(name, path, workload=SEGMENT) for name in ("app", "side")]
    pod = node.run("sharing-2", specs)
    assert [node.record(pod, name)["state"] for name in pod.containers] == ["cold"] * 2
    assert "app, side share memory of System V" in node.record(pod, "app")["reason"]


def test_a_terminal(node: RestoreNode) -> None:
    first = node.run("terminal", [ContainerSpec("app", command=TICKING, terminal=True)])
    eventually(lambda: "tick 5" in _log(first, "app"), "ticks")
    path = node.checkpoint(first)
    first.remove()
    pod = node.run("terminal-2", [asking("app", path, command=TICKING, terminal=True)])
    assert node.record(pod, "app")["state"] == "restored"
    eventually(lambda: "tick" in _log(pod, "app"), "more ticks")
    assert re.search(r"tick 1\b", _log(pod, "app")) is None
    assert _shell(pod, "app", "cat /proc/sys/kernel/hostname") == "terminal-2"
