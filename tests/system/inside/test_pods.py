"""A pod of the machine's own containerd, in cgroups of systemd's, as on a node of Kubernetes."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from bench.reports import wait_until
from tests.servers.containerd import NAMESPACE, ContainerdServer
from tests.servers.cri_api import cri_client
from tests.servers.cri_image import IMAGE, PAUSE_IMAGE, write_images
from tests.servers.cri_pods import ContainerSpec, Pod, new_uid, sandbox_config
from tests.system.inside.broker import URL, outcome, publish, start_broker
from tests.system.inside.node import (
    PATIENCE,
    SOCKET,
    Node,
    checkpoints,
    cli,
    configure,
    systemctl,
)

pytestmark = pytest.mark.timeout(1800)

_CONTAINERD = Path("/etc/containerd/config.toml")
_NETWORK = Path("/etc/cni/net.d/10-bridge.conflist")

_CONFIG = f"""\
version = 2
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE_IMAGE}"
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = true
"""

_BRIDGE = {
    "cniVersion": "0.4.0",
    "name": "pods",
    "plugins": [
        {
            "type": "bridge",
            "bridge": "pods",
            "isGateway": False,
            "ipMasq": False,
            "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.88.0.0/16"}]]},
        },
        {"type": "loopback"},
    ],
}


@dataclass(frozen=True, slots=True)
class _Containerd(ContainerdServer):
    """The one that is a unit: everything is where every node has it."""

    @property
    def runc_root(self) -> Path:
        return Path("/run/containerd/runc") / NAMESPACE

    @property
    def state_dir(self) -> Path:
        return Path("/run/containerd")

    @property
    def kubelet_dir(self) -> Path:
        return Path("/var/lib/kubelet")


@pytest.fixture
def pod(tmp_path: Path) -> Iterator[Pod]:
    """Two containers that count, in a slice of systemd's."""
    _CONTAINERD.write_text(_CONFIG)
    _NETWORK.parent.mkdir(parents=True, exist_ok=True)
    _NETWORK.write_text(json.dumps(_BRIDGE))
    systemctl("restart", "containerd.service")
    write_images(tmp_path / "images.tar")
    subprocess.run(
        ["ctr", "--namespace", NAMESPACE, "images", "import", tmp_path / "images.tar"], check=True
    )
    with cri_client(Path("/run/containerd/containerd.sock")) as cri:
        image = {"image": {"image": IMAGE}}
        wait_until(lambda: bool(cri.image("ImageStatus", image).get("image")), "the image",
                   timeout=PATIENCE)  # fmt: skip
        server = _Containerd(Path("/run/containerd"), cri, "", 0)
        config = sandbox_config("web", "default", new_uid(), "")
        slice_ = f"kubepods-pod{config['metadata']['uid'].replace('-', '_')}.slice"
        config["linux"]["cgroup_parent"] = slice_
        config["log_directory"] = str(tmp_path / "logs")
        sandbox = str(cri.runtime("RunPodSandbox", {"config": config})["pod_sandbox_id"])
        made = Pod(server, "web", "default", config["metadata"]["uid"], sandbox, config)
        try:
            for name in ("app", "side"):
                made.start(ContainerSpec(name))
            yield made
        finally:
            made.remove()


def test_a_pod_is_checkpointed_by_message_and_by_call(node: Node, pod: Pod) -> None:
    start_broker()
    configure(f'[nats]\nurl = "{URL}"\n')
    (listed,) = cli("pods", "--agent", f"unix:{SOCKET}")["pods"]
    assert (listed["ref"]["namespace"], listed["ref"]["name"]) == ("default", "web")

    request = {"pod": {"namespace": "default", "name": "web"}, "kind": "rootfs"}
    publish("actions.default.node-1.checkpoint", {"actionId": "by-message", "checkpoint": request})
    event = outcome("by-message")
    assert event["state"] == "ready", event
    assert cli("verify", event["checkpoint"]["path"])["members"] == 2
    called = cli("checkpoint", "--pod", "default/web", "--agent", f"unix:{SOCKET}")
    assert called["streamed"]
    assert sorted(called["containers"]) == ["app", "side"]
    for name in ("app", "side"):
        before = pod.counter(name)
        wait_until(lambda name=name, before=before: pod.counter(name) > before + 10,  # type: ignore[misc]
                   "its counting on", timeout=PATIENCE)  # fmt: skip
    for path in (event["checkpoint"]["path"], called["path"]):
        cli("delete", path, "--yes")
    assert checkpoints() == []
