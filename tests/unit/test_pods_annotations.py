"""What a pod's author says to the agent: found where engines put it, and nothing else is."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.pods import FoundPod, list_pods, resident_bytes
from tests.pod_states import Node

BEAT = "checkpoint-agent/heartbeat"


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def only(node: Node) -> FoundPod:
    (pod,) = list_pods([node.runc_root, node.crio_root])
    return pod


def test_only_those_that_are_meant_for_the_agent(node: Node) -> None:
    node.containerd(annotations={BEAT: "5m", "checkpoint-agentx/heartbeat": "1s", "other": "2s"})
    assert only(node).annotations == {BEAT: "5m"}


def test_cri_o_s_too(node: Node) -> None:
    node.crio(annotations={BEAT: "1h=\n5m"})
    assert only(node).annotations == {BEAT: "1h=\n5m"}


def test_the_pod_s_own_count_for_more_and_the_first_container_for_more_than_the_next(
    node: Node,
) -> None:
    node.containerd(name=None, annotations={BEAT: "sandbox"})
    node.containerd(name="b", annotations={BEAT: "b", "checkpoint-agent/keep": "b"})
    node.containerd(name="a", annotations={BEAT: "a", "checkpoint-agent/keep": "a"})
    assert only(node).annotations == {BEAT: "sandbox", "checkpoint-agent/keep": "a"}


def test_those_of_an_older_sandbox_do_not(node: Node) -> None:
    node.containerd(name=None, sandbox="5a", annotations={BEAT: "old"})
    node.containerd(sandbox="5a", annotations={BEAT: "old"})
    node.containerd(name=None, sandbox="5b")
    node.containerd(sandbox="5b", annotations={"checkpoint-agent/drain": "true"})
    assert only(node).annotations == {"checkpoint-agent/drain": "true"}


def test_a_pod_whose_cgroups_are_gone_has_no_memory(node: Node) -> None:
    node.containerd()
    assert resident_bytes(only(node)) == 0
