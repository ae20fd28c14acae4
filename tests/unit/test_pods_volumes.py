"""What belongs to pods beside their containers: volumes and memory; and files read only once."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from agent.pods import find_pod, list_pods
from agent.targets import PodRef, Volume
from tests.pod_states import UID, Node, bind

BY_NAME = PodRef(namespace="default", name="web")


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def test_volumes_of_containerd(node: Node, tmp_path: Path) -> None:
    pods = f"/var/lib/kubelet/pods/{UID}"
    shm = "/run/containerd/io.containerd.grpc.v1.cri/sandboxes/5a/shm"
    cache = f"{pods}/volumes/kubernetes.io~empty-dir/cache"
    subpaths = tmp_path / "pods" / UID
    (subpaths / "volumes/kubernetes.io~empty-dir/work").mkdir(parents=True)
    node.containerd(
        mounts=[
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts"},
            bind("/dev/shm", shm),
            bind("/cache", cache),
            bind("/etc/hosts", f"{pods}/etc-hosts"),
            bind("/token", f"{pods}/volumes/kubernetes.io~projected/kube-api-access-x"),
            bind("/work", f"{subpaths}/volume-subpaths/work/app/0"),
            bind("/config", f"{subpaths}/volume-subpaths/config/app/1"),
        ]
    )
    node.containerd(name="side", mounts=[bind("/dev/shm", shm), bind("/c", f"{cache}/below")])

    assert find_pod(BY_NAME, [node.runc_root]).volumes == (
        Volume("cache", Path(cache), "empty-dir"),
        Volume("work", subpaths / "volumes/kubernetes.io~empty-dir/work", "empty-dir"),
        Volume("shm", Path(shm), "shm"),
    )


def test_the_shm_of_crio(node: Node) -> None:
    shm = "/run/containers/storage/overlay-containers/5a/userdata/shm"
    node.crio(mounts=[bind("/dev/shm", shm)])
    assert find_pod(BY_NAME, [node.crio_root]).volumes == (Volume("shm", Path(shm), "shm"),)


def test_the_shm_of_the_host_is_not_the_pods(node: Node) -> None:
    """With `hostIPC: true`; and another sandbox's is not either."""
    node.containerd(mounts=[bind("/dev/shm", "/dev/shm"), bind("/x", "/run/sandboxes/5a/shm")])
    node.containerd(name="side", mounts=[bind("/dev/shm", "/run/sandboxes/5b/shm")])
    assert find_pod(BY_NAME, [node.runc_root]).volumes == ()


def test_another_pods_volume_is_not_this_ones(node: Node, tmp_path: Path) -> None:
    """Which a pod may mount by its path, where it may mount paths of its node."""
    other = tmp_path / "pods" / "another"
    (other / "volumes/kubernetes.io~empty-dir/work").mkdir(parents=True)
    node.containerd(
        mounts=[
            bind("/theirs", f"{other}/volumes/kubernetes.io~empty-dir/work"),
            bind("/below", f"{other}/volume-subpaths/work/app/0"),
            bind("/nobodys", "/srv/volumes/kubernetes.io~empty-dir/work"),
        ]
    )
    assert find_pod(BY_NAME, [node.runc_root]).volumes == ()


def test_memory_that_a_pod_brings_itself(node: Node) -> None:
    source = f"/var/lib/kubelet/pods/{UID}/volumes/kubernetes.io~empty-dir/dshm"
    node.containerd(mounts=[bind("/dev/shm", source)])
    found = find_pod(BY_NAME, [node.runc_root])
    assert found.volumes == (Volume("dshm", Path(source), "empty-dir"),)


def test_a_file_that_changes_is_read_again(node: Node) -> None:
    container = node.containerd()
    path = node.runc_root / container / "state.json"
    assert [pod.ref.name for pod in list_pods([node.runc_root])] == ["web"]
    text = path.read_text().replace("sandbox-name=web", "sandbox-name=bew")
    new = path.with_name("state.json.new")  # as runc does: another file, renamed
    new.write_text(text)
    new.replace(path)
    assert [pod.ref.name for pod in list_pods([node.runc_root])] == ["bew"]
    path.write_text(json.dumps({}))
    assert list_pods([node.runc_root]) == []


def test_a_file_that_is_the_same_is_not_read_again(node: Node) -> None:
    """Not even to see that it is: what tells is inode, time and size."""
    path = node.runc_root / node.containerd() / "state.json"
    assert [pod.ref.name for pod in list_pods([node.runc_root])] == ["web"]
    facts = path.stat()
    path.write_text(path.read_text().replace("sandbox-name=web", "sandbox-name=bew"))
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert [pod.ref.name for pod in list_pods([node.runc_root])] == ["web"]
    os.utime(path)
    assert [pod.ref.name for pod in list_pods([node.runc_root])] == ["bew"]
