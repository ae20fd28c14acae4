"""What the inventory says of pods, as the message has it."""

from __future__ import annotations

from pathlib import Path

from agent.daemon.gpus import NodeGpus
from agent.daemon.node import Node, found_pod_message
from agent.host.cuda import Cuda
from agent.host.facts import platform_name
from agent.manifest import Host
from agent.pods import FoundPod, PodContainer
from agent.settings import load
from agent.targets import PodRef, RuncTarget

HOST = Host(name="h", kernel="6.1", architecture="x86_64", criu="4.2", runc=None)


def test_a_node_is_described_as_of_now(tmp_path: Path) -> None:
    variables = {
        "CHECKPOINT_AGENT_PODS__RUNC_ROOTS": f'["{tmp_path}"]',
        "CHECKPOINT_AGENT_NODE__NAME": "a.b",
    }
    counts = [(0, 0), (2, 7)]
    settings = load(Path("/dev/null"), variables)
    node = Node(settings, HOST, lambda: counts.pop(0), NodeGpus(Cuda()))
    first, second = node.info(), node.info()
    assert (first.cluster, first.node, first.kernel) == ("default", "a_b", "6.1")
    assert (first.platform, first.criu, first.runc) == (platform_name(), "4.2", "")
    assert first.agent_version
    assert (first.running, first.queued) == (0, 0)
    assert (second.running, second.queued) == (2, 7)
    assert first.started == second.started


def test_a_pod_is_described_whole() -> None:
    container = PodContainer(
        name="app",
        target=RuncTarget("c1", Path("/run/x")),
        bundle=Path("/b"),
        image="busybox",
        status="running",
        checkpoint_name=None,
    )
    pod = FoundPod(PodRef("u", "ns", "p"), "cri-o", "s1", (container,), ())
    message = found_pod_message(pod)
    assert (message.ref.uid, message.ref.namespace, message.ref.name) == ("u", "ns", "p")
    assert (message.runtime, message.sandbox_id) == ("cri-o", "s1")
    (found,) = message.containers
    assert (found.name, found.id, found.runc_root) == ("app", "c1", "/run/x")
    assert (found.image, found.status, found.checkpoint_name) == ("busybox", "running", "")
