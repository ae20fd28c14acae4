"""Pods are found exactly, in what the runtimes are known to write."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path

import pytest

from agent.errors import InvalidArgument, PodAmbiguous, PodNotFound, TargetNotCheckpointable
from agent.pods import FoundPod, find_pod, list_pods
from agent.targets import PodRef, RuncTarget
from tests.pod_states import UID, Node

OTHER = "ffffffff-1111-4222-8333-444455556666"
BY_NAME = PodRef(namespace="default", name="web")


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def _ids(pod: FoundPod) -> dict[str, str]:
    return {each.name: each.target.container for each in pod.containers}


def test_a_pod_of_containerd(node: Node) -> None:
    node.containerd(name=None)
    app = node.containerd(env=["PATH=/bin", "CHECKPOINT_NAME=nightly"])
    side = node.containerd(name="side")

    (pod,) = list_pods([node.runc_root])

    assert pod.ref == PodRef(UID, "default", "web")
    assert (pod.runtime, pod.sandbox_id) == ("containerd", "5a")
    assert _ids(pod) == {"app": app, "side": side}
    first, second = pod.containers
    assert first.target == RuncTarget(app, node.runc_root)
    assert (
        first.bundle
        == node.directory / f"run/containerd/io.containerd.runtime.v2.task/k8s.io/{app}"
    )
    assert (first.image, first.status) == ("docker.io/a:1", "running")
    assert (first.checkpoint_name, second.checkpoint_name) == ("nightly", None)


@pytest.mark.parametrize(
    "ref",
    [
        PodRef(uid=UID),
        BY_NAME,
        PodRef(UID, "default", "web"),
        PodRef(uid=UID, name="web"),
        PodRef(uid=UID, namespace="default"),
    ],
    ids=str,
)
def test_whatever_is_given_has_to_match(node: Node, ref: PodRef) -> None:
    node.containerd()
    assert find_pod(ref, [node.runc_root]).ref == PodRef(UID, "default", "web")
    for part, value in asdict(ref).items():
        if value:
            wrong = PodRef(**(asdict(ref) | {part: OTHER}))
            with pytest.raises(PodNotFound, match=str(wrong)):
                find_pod(wrong, [node.runc_root])


@pytest.mark.parametrize("ref", [PodRef(), PodRef(name="web"), PodRef(namespace="default")])
def test_too_little_is_given(node: Node, ref: PodRef) -> None:
    node.containerd()
    with pytest.raises(InvalidArgument, match="UID"):
        find_pod(ref, [node.runc_root])


@pytest.mark.parametrize("name", ["web-1", "web-10", "web", "eb-1", "WEB-1"])
def test_a_name_is_not_a_part_of_another(node: Node, name: str) -> None:
    ids = {}
    for number, pod in enumerate(["web-1", "web-10", "web"]):
        uid = f"{number}" + UID[1:]
        ids[pod] = node.containerd(pod, uid=uid, sandbox=f"5{number}")
    node.containerd("web-1", namespace="other", uid=OTHER, sandbox="6")
    ref = PodRef(namespace="default", name=name)
    if name in ids:
        assert _ids(find_pod(ref, [node.runc_root])) == {"app": ids[name]}
    else:
        with pytest.raises(PodNotFound):
            find_pod(ref, [node.runc_root])


def test_two_of_one_name_are_ambiguous(node: Node) -> None:
    mine = node.containerd()
    node.containerd(uid=OTHER, sandbox="6")
    with pytest.raises(PodAmbiguous, match=f"{UID}.*{OTHER}"):
        find_pod(BY_NAME, [node.runc_root])
    assert _ids(find_pod(PodRef(uid=UID), [node.runc_root])) == {"app": mine}


def test_one_that_ended_is_not_in_the_way(node: Node) -> None:
    node.containerd(name=None, alive=False)
    node.containerd(alive=False)
    app = node.containerd(uid=OTHER, sandbox="6")
    assert _ids(find_pod(BY_NAME, [node.runc_root])) == {"app": app}
    assert [pod.ref.uid for pod in list_pods([node.runc_root])] == [OTHER]


def test_two_runtimes_that_share_a_root(node: Node) -> None:
    """k3s's containerd and the machine's: the bundle tells them apart."""
    node.containerd()
    node.state = "k3s/containerd"
    node.containerd(name="side", sandbox="6")
    assert [len(pod.containers) for pod in list_pods([node.runc_root])] == [1, 1]
    with pytest.raises(PodAmbiguous, match=r"sandbox 5a.*sandbox 6"):
        find_pod(PodRef(uid=UID), [node.runc_root])


def test_k3s_alone(node: Node) -> None:
    node.state = "k3s/containerd"
    app = node.containerd()
    found = find_pod(BY_NAME, [node.runc_root])
    assert _ids(found) == {"app": app}
    assert "k3s" in str(found.containers[0].bundle)


def test_the_newest_of_a_name_that_runs(node: Node) -> None:
    node.containerd()
    second = node.containerd()
    node.containerd(alive=False)
    assert _ids(find_pod(BY_NAME, [node.runc_root])) == {"app": second}


def test_a_container_that_was_not_started_yet(node: Node) -> None:
    app = node.containerd()
    waiting = node.containerd()
    (node.runc_root / waiting / "exec.fifo").touch()
    assert _ids(find_pod(BY_NAME, [node.runc_root])) == {"app": app}


def test_the_newest_sandbox_counts(node: Node) -> None:
    node.containerd(name=None, sandbox="5a")
    node.containerd(sandbox="5a")
    node.containerd(name=None, sandbox="5b")
    node.containerd(name="late", sandbox="5a")
    new = node.containerd(sandbox="5b")
    found = find_pod(PodRef(uid=UID), [node.runc_root])
    assert (found.sandbox_id, _ids(found)) == ("5b", {"app": new})


def test_a_sandbox_alone(node: Node) -> None:
    node.containerd(name=None)
    assert [pod.containers for pod in list_pods([node.runc_root])] == [()]
    with pytest.raises(TargetNotCheckpointable, match="no container of it runs"):
        find_pod(BY_NAME, [node.runc_root])


def test_a_pod_whose_pid_is_another_process_now(node: Node) -> None:
    node.containerd(alive=False)
    assert list_pods([node.runc_root]) == []
    with pytest.raises(TargetNotCheckpointable, match="no container of it runs"):
        find_pod(BY_NAME, [node.runc_root])


def test_nothing_is_there(node: Node) -> None:
    roots = [node.runc_root, node.directory / "nowhere"]
    assert list_pods(roots) == []
    with pytest.raises(PodNotFound, match="default/web"):
        find_pod(BY_NAME, roots)


@pytest.mark.parametrize(
    "cgroup",
    [
        "kubepods/besteffort/pod{uid}",
        "kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{slice}.slice",
    ],
    ids=["cgroupfs", "systemd"],
)
def test_the_first_containerd_that_wrote_no_uid(node: Node, cgroup: str) -> None:
    path = cgroup.format(uid=OTHER, slice=OTHER.replace("-", "_"))
    node.containerd(with_uid=False, uid="x", cgroup=path)
    assert find_pod(PodRef(uid=OTHER), [node.runc_root]).ref.name == "web"


@pytest.mark.parametrize(("env", "name"), [([], "daily"), (["CHECKPOINT_NAME=nightly"], "nightly")])
def test_a_name_in_an_annotation_counts_for_less(node: Node, env: list[str], name: str) -> None:
    node.crio(env=env, annotations={"checkpoint-agent/name": "daily"})

    (found,) = list_pods([node.crio_root])

    assert [each.checkpoint_name for each in found.containers] == [name]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("n" * 253, "n" * 253),
        ("n" * 254, None),
        ("n" * 300_000, None),
        ("two\nlines", None),
        ("\ud800", None),
    ],
    ids=["longest", "longer", "more than an event", "lines", "half a character"],
)
@pytest.mark.parametrize("place", ["environment", "annotation"])
def test_a_name_that_no_request_could_have_is_none(
    node: Node, place: str, name: str, found: str | None
) -> None:
    if place == "environment":
        node.crio(env=[f"CHECKPOINT_NAME={name}"])
    else:
        node.crio(annotations={"checkpoint-agent/name": name})

    (pod,) = list_pods([node.crio_root])

    assert [each.checkpoint_name for each in pod.containers] == [found]


def test_an_annotation_counts_where_the_variable_is_no_name(node: Node) -> None:
    node.crio(
        env=["CHECKPOINT_NAME=nightly", f"CHECKPOINT_NAME={'n' * 254}"],
        annotations={"checkpoint-agent/name": "daily"},
    )

    (pod,) = list_pods([node.crio_root])

    assert [each.checkpoint_name for each in pod.containers] == ["daily"]


@pytest.mark.parametrize("flat", [True, False], ids=["flat labels", "packed labels"])
@pytest.mark.parametrize("sandbox", [True, False], ids=["pause", "no pause"])
def test_a_pod_of_crio(node: Node, flat: bool, sandbox: bool) -> None:
    if sandbox:
        node.crio(name=None, flat=flat)
    app = node.crio(flat=flat, env=["CHECKPOINT_NAME=nightly"])
    side = node.crio(name="side", flat=flat)
    found = find_pod(BY_NAME, [node.runc_root, node.crio_root])
    assert (found.runtime, found.ref.uid, found.sandbox_id) == ("cri-o", UID, "5a")
    assert _ids(found) == {"app": app, "side": side}
    assert found.containers[0].image == "quay.io/a:1"
    assert found.containers[0].checkpoint_name == "nightly"
    assert found.containers[0].target.root == node.crio_root


def test_the_newest_sandbox_of_crio_without_pause(node: Node) -> None:
    node.crio(sandbox="5a")
    new = node.crio(sandbox="5b")
    assert _ids(find_pod(BY_NAME, [node.crio_root])) == {"app": new}


def test_a_newer_sandbox_without_pause(node: Node) -> None:
    node.crio(name=None, sandbox="5a")
    node.crio(sandbox="5a")
    new = node.crio(sandbox="5b")
    assert _ids(find_pod(BY_NAME, [node.crio_root])) == {"app": new}


def test_an_author_of_crio_cannot_pass_for_another_pod(node: Node) -> None:
    """CRI-O copies a pod's annotations onto its containers, under whatever name they have."""
    node.crio(annotations={"io.kubernetes.pod.uid": OTHER, "io.kubernetes.pod.name": "victim"})
    assert [pod.ref for pod in list_pods([node.crio_root])] == [PodRef(UID, "default", "web")]


@pytest.mark.parametrize("runtime", ["cri-o", "containerd"])
def test_crun_is_named(node: Node, runtime: str) -> None:
    """CRI-O gives crun a root of its own, containerd gives it runc's."""
    container = node.crio(runtime="crun")
    if runtime == "containerd":
        shutil.move(node.directory / "run/crun" / container, node.runc_root)
    root = node.runc_root if runtime == "containerd" else node.directory / "run/crun"
    assert list_pods([root]) == []
    with pytest.raises(TargetNotCheckpointable, match="crun"):
        find_pod(BY_NAME, [root])
    with pytest.raises(PodNotFound):
        find_pod(PodRef(namespace="default", name="other"), [root])
