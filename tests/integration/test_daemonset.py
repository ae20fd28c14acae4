"""The agent as a pod, from its own image and its own manifest, beside other pods of one node."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.reports import Counter
from tests.bundles import host_bundle, in_memory
from tests.cli_process import ROOT, only_document, run_cli
from tests.daemonset import KUBECTL, AgentPod
from tests.pod_checks import assert_pod_unharmed, is_frozen
from tests.servers.containerd import ContainerdServer, containerd_server
from tests.servers.cri_pods import ContainerSpec, Pod, new_uid, sandbox_config
from tests.servers.node_image import import_agent_image

pytestmark = [
    pytest.mark.root,
    pytest.mark.criu,
    pytest.mark.slow,
    # The image's import alone takes ten seconds on two cores.
    pytest.mark.timeout(180),
    pytest.mark.skipif(not KUBECTL.exists(), reason="no kubectl, which has kustomize"),
]


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    """Short, for the sockets in it."""
    if os.geteuid() != 0:
        pytest.skip("containers need root")
    with in_memory("ds-") as path:
        yield path


@pytest.fixture(scope="module")
def server(directory: Path) -> Iterator[ContainerdServer]:
    wrapper = directory / "opt" / "bin" / "checkpoint-runc"
    with containerd_server(directory, {"checkpoint-runc": wrapper}) as made:
        bundle = host_bundle(directory / "bundle")
        import_agent_image(made, bundle, directory)
        yield made


@pytest.fixture(scope="module")
def agent(server: ContainerdServer, directory: Path) -> Iterator[AgentPod]:
    """One for all tests; who stops its daemon starts it again."""
    pod = AgentPod(server, directory / "opt", directory)
    pod.start()
    yield pod
    pod.stop()


@pytest.fixture
def neighbour(agent: AgentPod) -> Iterator[Pod]:
    specs = [
        ContainerSpec("app", volumes={"cache": "/cache"}),
        ContainerSpec("side", volumes={"cache": "/shared"}),
    ]
    pod = agent.server.run_pod("web-1", containers=specs)
    yield pod
    pod.remove()


def _ask(agent: AgentPod, *words: str) -> dict[str, object]:
    done = run_cli(*words, "-o", "json", env={"CHECKPOINT_AGENT_ADDRESS": f"unix:{agent.socket}"})
    assert done.returncode == 0, done.stdout + done.stderr + agent.log("agent")
    found: dict[str, object] = only_document(done.stdout)
    return found


def test_it_is_placed_on_the_node(agent: AgentPod) -> None:
    version = os.readlink(agent.prefix / "current")
    assert os.readlink(agent.prefix / "bin") == "current/bin"
    assert (agent.prefix / version / ".checkpoint-agent").read_text().strip() == version
    assert str(agent.prefix / version) in (agent.prefix / "bin" / "checkpoint-runc").read_text()
    assert f"current is {version}" in agent.log("install")


def test_it_lives_among_the_node_s_files_and_in_its_pod_s_network(agent: AgentPod) -> None:
    daemon = Path("/proc", str(agent.daemon()))
    assert "10.96.0.10" in (daemon / "root/etc/resolv.conf").read_text()
    assert "10.96.0.10" not in Path("/etc/resolv.conf").read_text()
    assert (daemon / "root" / str(agent.prefix)[1:]).samefile(agent.prefix)
    same = {
        name: (daemon / "ns" / name).samefile(f"/proc/self/ns/{name}")
        for name in ("mnt", "pid", "uts", "ipc", "net")
    }
    assert same == {"mnt": False, "pid": True, "uts": True, "ipc": True, "net": False}
    # What it has mounted for itself is not there for the node.
    assert f"{agent.prefix}/" not in Path("/proc/self/mountinfo").read_text()


def test_it_is_asked_without_a_login_on_the_node(agent: AgentPod, neighbour: Pod) -> None:
    """In the words of the guide, as `kubectl exec` has a container run them."""
    guide = (ROOT / "docs" / "kubernetes.md").read_text()
    [line] = re.findall(r"kubectl \S+ \S+ exec POD -c agent -- (nsenter .*) doctor`", guide)
    line = line.replace("/opt/checkpoint-agent", str(agent.prefix))
    words = line.replace("-t 1 ", f"-t {agent.node_pid} ").split()

    words += ["pods", "--agent", f"unix:{agent.socket}", "-o", "json"]
    assert neighbour.uid in agent.server.cri.execute(agent.containers["agent"], *words)


def test_it_checkpoints_its_neighbour(agent: AgentPod, neighbour: Pod) -> None:
    taken = _ask(agent, "checkpoint", "--pod", f"{neighbour.namespace}/{neighbour.name}")
    assert taken["streamed"] is True
    assert_pod_unharmed(neighbour)
    assert str(taken["path"]).startswith(f"file://{agent.directory}/state/checkpoints")
    verified = run_cli("verify", str(taken["path"]), "-o", "json")
    assert verified.returncode == 0, verified.stdout


def test_a_pod_comes_back_through_the_runtime_it_installed(agent: AgentPod, neighbour: Pod) -> None:
    counted = {
        name: neighbour.report(name).wait_beyond(Counter.TICKS, 50) for name in neighbour.containers
    }
    taken = _ask(agent, "checkpoint", "--pod", neighbour.uid, "--kind", "rootfs")
    asking = {"CHECKPOINT_RESTORE": str(taken["path"])}
    specs = [ContainerSpec(name, env=asking, volumes={"cache": path})
             for name, path in (("app", "/cache"), ("side", "/shared"))]  # fmt: skip
    again = agent.server.run_pod("web-2", containers=specs, handler="checkpoint-runc")
    for name, before in counted.items():
        record = agent.directory / "restores" / again.sandbox_id / f"{name}.json"
        assert json.loads(record.read_text())["state"] == "restored", agent.log("agent")
        assert again.counter(name) >= before
        again.report(name).wait_beyond(Counter.TICKS, again.counter(name) + 10)
    again.remove()


def test_a_container_in_the_node_s_network(agent: AgentPod) -> None:
    """For CRIU it must not look like one in a network of its own: that would be dumped."""
    config = sandbox_config("node-web", "default", new_uid(), agent.server.name)
    config["log_directory"] = str(agent.directory / "logs" / "node-web")
    config["hostname"] = ""
    context = config["linux"]["security_context"]
    context["namespace_options"] = {**context["namespace_options"], "network": "NODE"}
    made = agent.server.cri.runtime("RunPodSandbox", {"config": config})
    uid = config["metadata"]["uid"]
    pod = Pod(agent.server, "node-web", "default", uid, str(made["pod_sandbox_id"]), config)
    pod.start(ContainerSpec("app"))
    assert _ask(agent, "checkpoint", "--pod", pod.uid)["streamed"] is True
    report = pod.report("app")
    report.wait_beyond(Counter.TICKS, report.read(Counter.TICKS) + 10)
    assert report.read(Counter.RESUMES) == 0
    pod.remove()


def test_what_a_caller_froze_is_thawed_when_the_daemon_is_killed(
    agent: AgentPod, neighbour: Pod
) -> None:
    _ask(agent, "freeze", f"{neighbour.namespace}/{neighbour.name}", "--for", "60s")
    assert is_frozen(neighbour, "app")
    os.kill(agent.daemon(), signal.SIGKILL)
    assert agent.wait("agent") == 128 + signal.SIGKILL
    # By the shell that waited for it, before the container had ended.
    assert not is_frozen(neighbour, "app")
    assert_pod_unharmed(neighbour)
    agent.start_again()


def test_it_stops_in_order(agent: AgentPod) -> None:
    assert agent.stop() == 0, agent.log("agent")
    assert '"event": "stopped"' in agent.log("agent")
    assert not agent.socket.exists()
    agent.start_again()
