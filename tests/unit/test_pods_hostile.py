"""State files that no runtime would write: skipped, never an exception, and nobody else hidden."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.errors import PodNotFound
from agent.pods import find_pod, list_pods
from agent.pods.files import MAX_BYTES
from agent.targets import PodRef
from tests.pod_states import UID, Json, Node
from tests.waiting import descriptors, opened_since

GOOD = PodRef("99999999-1111-4222-8333-444455556666", "default", "good")


@pytest.fixture
def node(tmp_path: Path) -> Node:
    node = Node(tmp_path)
    node.containerd(GOOD.name, uid=GOOD.uid, sandbox="90")
    return node


def _assert_only_the_good_one(node: Node) -> None:
    roots = [node.runc_root, node.crio_root]
    assert [pod.ref for pod in list_pods(roots)] == [GOOD]
    with pytest.raises(PodNotFound):
        find_pod(PodRef(uid=UID), roots)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe\x00",
        b"[" * 200_000,
        b'{"config": ' * 100_000,
        b'{"config": 1e999}',
        b'{"config": {"labels": ' + b"9" * 10_000 + b"}}",
    ],
    ids=["empty", "cut", "list", "null", "binary", "deep", "deeper", "infinite", "digits"],
)
def test_what_is_no_state(node: Node, content: bytes) -> None:
    container = node.containerd()
    (node.runc_root / container / "state.json").write_bytes(content)
    _assert_only_the_good_one(node)


def _change(path: Path, change: Callable[[Json], object]) -> None:
    state = json.loads(path.read_text())
    change(state)
    path.write_text(json.dumps(state))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("init_process_pid", "1"),
        ("init_process_pid", None),
        ("init_process_pid", True),
        ("init_process_pid", -1),
        ("init_process_pid", 0),
        ("init_process_pid", 10**30),
        ("init_process_start", 1.5),
        ("created", "yesterday"),
        ("created", 7),
        ("created", "0000-00-00T00:00:00Z"),
        ("cgroup_paths", ["/"]),
        ("cgroup_paths", {"freezer": 7}),
        ("config", None),
        ("config", {"labels": {"a": "b"}}),
        ("config", {"labels": [["a=b"]]}),
        ("config", {"labels": ["=", "a", ""]}),
    ],
)
def test_wrong_values(node: Node, key: str, value: object) -> None:
    container = node.containerd()
    path = node.runc_root / container / "state.json"
    _change(path, lambda state: state.update({key: value}))
    if key.startswith("init_process"):
        # Known, if wrong: it does not run.
        assert [pod.ref for pod in list_pods([node.runc_root])] == [GOOD]
    else:
        _assert_only_the_good_one(node)


@pytest.mark.parametrize("key", ["id", "config", "created", "init_process_pid", "cgroup_paths"])
def test_keys_that_are_missing(node: Node, key: str) -> None:
    container = node.containerd()
    _change(node.runc_root / container / "state.json", lambda state: state.pop(key))
    found = [pod.ref.name for pod in list_pods([node.runc_root])]
    assert found == (["good", "web"] if key == "id" else ["good"])


@pytest.mark.parametrize(
    "name", ["", "../../etc", "a b", "a\nb", "a\x1b[2J", "-web", "w" * 300, "wéb", "a/b", "a*", "*"]
)
def test_names_that_are_none(node: Node, name: str) -> None:
    node.containerd(pod=name)
    node.crio(name=name or "/", sandbox="5b")
    node.crio(namespace=name, sandbox="5c")
    _assert_only_the_good_one(node)


def test_labels_of_crio_that_are_no_object(node: Node) -> None:
    node.crio(flat=False, annotations={"io.kubernetes.cri-o.Labels": "[" * 50_000})
    node.crio(flat=False, annotations={"io.kubernetes.cri-o.Labels": "[1]"})
    node.crio(flat=False, annotations={"io.kubernetes.cri-o.ContainerType": "vm"})
    _assert_only_the_good_one(node)


def test_a_file_that_is_too_big(node: Node) -> None:
    path = node.runc_root / node.containerd() / "state.json"
    _change(path, lambda state: state.update(padding="x" * MAX_BYTES))
    _assert_only_the_good_one(node)


@pytest.mark.parametrize("what", ["link", "dangling", "circle", "fifo", "folder", "gone"])
def test_what_is_no_file(node: Node, what: str, tmp_path: Path) -> None:
    path = node.runc_root / node.containerd() / "state.json"
    path.rename(tmp_path / "elsewhere")
    if what == "fifo":
        os.mkfifo(path)
    elif what == "folder":
        path.mkdir()
    elif what != "gone":
        target = {"link": "elsewhere", "dangling": "nowhere", "circle": path.name}[what]
        path.symlink_to(path if what == "circle" else tmp_path / target)
    before = descriptors()
    _assert_only_the_good_one(node)
    assert opened_since(before) == {}


def test_a_directory_that_is_a_link(node: Node, tmp_path: Path) -> None:
    container = node.runc_root / node.containerd()
    container.rename(tmp_path / "elsewhere")
    container.symlink_to(tmp_path / "elsewhere")
    (node.runc_root / "a file").touch()
    _assert_only_the_good_one(node)


@pytest.mark.parametrize("bundle", ["relative/path", "", "/nowhere", "/null\0byte"])
def test_a_bundle_that_is_none(node: Node, bundle: str) -> None:
    """Without an absolute path it is no container; one that is gone costs the details only."""
    path = node.runc_root / node.containerd() / "state.json"
    _change(path, lambda state: _labels(state).append(f"bundle={bundle}"))
    found = {pod.ref.name: pod for pod in list_pods([node.runc_root])}
    if bundle.startswith("/"):
        assert found["web"].containers[0].checkpoint_name is None
        assert found["web"].volumes == ()
    else:
        assert list(found) == ["good"]


def _labels(state: Json) -> list[str]:
    config = state["config"]
    assert isinstance(config, dict)
    labels = config["labels"]
    assert isinstance(labels, list)
    return labels


@pytest.mark.parametrize(
    "config",
    [
        "[]",
        '{"process": 7, "mounts": 7, "annotations": 7}',
        '{"process": {"env": {"CHECKPOINT_NAME": "x"}}, "mounts": {"a": 1}}',
        '{"process": {"env": [1, "CHECKPOINT_NAME="]}, "mounts": [1, {}, {"source": 1}]}',
        '{"mounts": [{"destination": "/dev/shm", "source": "/a/../sandboxes/5a/shm"}]}',
        '{"mounts": [{"destination": "/x", "source": "/volumes/kubernetes.io~empty-dir/.."}]}',
        '{"mounts": [{"destination": "/x", "source": "/volumes/kubernetes.io~empty-dir/"}]}',
    ],
)
def test_a_config_that_is_none(node: Node, config: str) -> None:
    container = node.containerd()
    bundle = node.directory / f"run/containerd/io.containerd.runtime.v2.task/k8s.io/{container}"
    (bundle / "config.json").write_text(config)
    found = find_pod(PodRef(uid=UID), [node.runc_root])
    assert (found.containers[0].checkpoint_name, found.volumes) == (None, ())


@pytest.mark.parametrize("path", ["/etc/passwd", "/\0", "/" + "x" * 5000, "relative"])
def test_a_cgroup_that_is_none(node: Node, path: str) -> None:
    state = node.runc_root / node.containerd() / "state.json"
    _change(state, lambda state: state.update(cgroup_paths={"freezer": path}))
    assert find_pod(PodRef(uid=UID), [node.runc_root]).containers[0].status == "running"
