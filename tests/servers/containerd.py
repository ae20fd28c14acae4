"""A real containerd with its CRI and a bridge network, for pods as Kubernetes nodes have them.

It shares nothing with a containerd of the machine or of another test: directories, socket, bridge,
subnet, cgroups and runc root are its own, and gone afterwards. Needs root, the packages containerd
and containernetworking-plugins, and api.proto (deploy/cri-api.sh).

    with containerd_server() as server:
        pod = server.run_pod("web", containers=[ContainerSpec("app"), ContainerSpec("side")])
        pod.counter("app"), pod.containers["app"], server.runc_root
        pod.remove()
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import grpc

from tests.servers.containerd_leftovers import clear
from tests.servers.cri_api import CriClient, cri_client
from tests.servers.cri_image import IMAGE, PAUSE_IMAGE, write_images
from tests.servers.cri_pods import ContainerSpec, Pod, new_uid, sandbox_config

NAMESPACE = "k8s.io"  # containerd's, of everything that its CRI makes
READY_SECONDS = 30.0
STOP_SECONDS = 10.0

_CNI_PLUGINS = Path("/usr/lib/cni")

# Tracing wants a collector, and `opt` makes /opt/containerd; neither plays a part.
_CONFIG = """\
version = 2
root = "{directory}/root"
state = "{directory}/state"
disabled_plugins = [
    "io.containerd.internal.v1.opt", "io.containerd.internal.v1.tracing",
    "io.containerd.tracing.processor.v1.otlp", "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.aufs",
]
[grpc]
address = "{directory}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{pause}"
disable_apparmor = true
# Lowering oom_score_adj needs a right that root in a container has not.
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{plugins}"
conf_dir = "{directory}/cni"
[plugins."io.containerd.grpc.v1.cri".containerd]
default_runtime_name = "runc"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
Root = "{directory}/runc"
SystemdCgroup = false
"""

# As deploy/ registers it on a node.
_HANDLER = """\
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.{name}]
runtime_type = "io.containerd.runc.v2"
pod_annotations = ["checkpoint-agent/*"]
container_annotations = ["checkpoint-agent/*"]
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.{name}.options]
BinaryName = "{program}"
Root = "{directory}/runc"
SystemdCgroup = false
"""


@dataclass(frozen=True, slots=True)
class ContainerdServer:
    """A containerd that runs.

    Attributes:
        directory: everything of it is below this.
        cri: a client of its CRI.
        name: of its bridge, and of the cgroup that all its pods are in.
        pid: of containerd itself, for a test that kills it. Its pods run on without it.
    """

    directory: Path
    cri: CriClient
    name: str
    pid: int

    @property
    def runc_root(self) -> Path:
        """What the agent has to know as a runc root: containerd appends its namespace."""
        return self.directory / "runc" / NAMESPACE

    @property
    def socket(self) -> Path:
        """Where it serves the CRI."""
        return self.directory / "containerd.sock"

    @property
    def state_dir(self) -> Path:
        """containerd's state directory, /run/containerd on a node."""
        return self.directory / "state"

    @property
    def kubelet_dir(self) -> Path:
        """What is /var/lib/kubelet on a node: pods' volumes."""
        return self.directory / "kubelet"

    def bundle(self, container_id: str) -> Path:
        """The OCI bundle of a container or sandbox."""
        return self.state_dir / "io.containerd.runtime.v2.task" / NAMESPACE / container_id

    def run_pod(
        self,
        name: str,
        namespace: str = "default",
        uid: str | None = None,
        *,
        containers: Sequence[ContainerSpec] = (ContainerSpec("main"),),
        attempt: int = 0,
        handler: str = "",
        annotations: Mapping[str, str] | None = None,
    ) -> Pod:
        """Make a pod and return when the workloads of all its containers are up.

        Args:
            uid: a new one when not given.
            attempt: the same pod can have another sandbox, under another number.
            handler: what its RuntimeClass names, the default one when not given.

        Raises:
            grpc.RpcError: containerd could not make it. What it did make goes with the server.
            Stalled: a workload did not get ready.
        """
        config = sandbox_config(name, namespace, uid or new_uid(), self.name, attempt)
        config["annotations"] = dict(annotations or {})
        config["log_directory"] = str(self.directory / "logs" / config["metadata"]["uid"])
        request = {"config": config, "runtime_handler": handler}
        sandbox_id = str(self.cri.runtime("RunPodSandbox", request)["pod_sandbox_id"])
        pod = Pod(self, name, namespace, config["metadata"]["uid"], sandbox_id, config)
        for spec in containers:
            pod.start(spec)
        return pod

    def remove_pods(self) -> None:
        """Remove every pod."""
        for each in self.cri.runtime("ListPodSandbox").get("items", []):
            request = {"pod_sandbox_id": each["id"]}
            self.cri.runtime("StopPodSandbox", request)
            self.cri.runtime("RemovePodSandbox", request)


@contextmanager
def containerd_server(
    parent: Path | None = None, handlers: Mapping[str, Path] | None = None
) -> Iterator[ContainerdServer]:
    """Start containerd with the workloads' image, and remove everything of it at exit.

    Starting takes about two seconds, so share it between tests.

    Args:
        parent: where to put it. Keep it short: paths of unix sockets below it have 107 bytes.
        handlers: OCI runtimes beside runc, by the names that a RuntimeClass has for them.

    Raises:
        RuntimeError: something is missing, or it does not start; the text has its log.
    """
    _require()
    directory = Path(tempfile.mkdtemp(prefix="cri-", dir=parent))
    name = f"ca-{secrets.token_hex(4)}"  # an interface's name has 15 bytes
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, directory)
        stack.callback(clear, directory, name)
        _configure(directory, name, handlers or {})
        daemon = stack.enter_context(_daemon(directory))
        cri = stack.enter_context(cri_client(directory / "containerd.sock"))
        server = ContainerdServer(directory, cri, name, daemon.pid)
        _wait_ready(server, daemon)
        _import_images(server)
        # A pod that cannot be removed in order is cleared away after all the same.
        stack.callback(_remove_pods_if_it_still_answers, server)
        yield server


def _remove_pods_if_it_still_answers(server: ContainerdServer) -> None:
    with suppress(grpc.RpcError):
        server.remove_pods()


def _require() -> None:
    for program in ("containerd", "ctr", "runc"):
        if shutil.which(program) is None:
            raise RuntimeError(f"no {program}; `make setup` installs it")
    if not (_CNI_PLUGINS / "bridge").exists():
        raise RuntimeError(f"no {_CNI_PLUGINS}/bridge; `make setup` installs it")


def _configure(directory: Path, name: str, handlers: Mapping[str, Path]) -> None:
    (directory / "root").mkdir()
    asked = ["stat", "--file-system", "--format", "%T", str(directory)]
    if subprocess.run(asked, check=True, capture_output=True).stdout.strip() == b"overlayfs":
        # Tests that run in a container themselves: an overlay takes no overlay as upper layer.
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", directory / "root"], check=True)
    text = _CONFIG.format(directory=directory, pause=PAUSE_IMAGE, plugins=_CNI_PLUGINS)
    for handler, program in handlers.items():
        text += _HANDLER.format(name=handler, program=program, directory=directory)
    (directory / "config.toml").write_text(text)
    (directory / "cni").mkdir()
    network = {
        "cniVersion": "0.4.0",
        "name": name,
        "plugins": [
            {
                "type": "bridge",
                "bridge": name,
                # No address on the host, so no route: subnets of two bridges never meet.
                "isGateway": False,
                "ipMasq": False,
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{"subnet": "10.88.0.0/16"}]],
                    "dataDir": str(directory / "addresses"),
                },
            },
            {"type": "loopback"},
        ],
    }
    (directory / "cni" / "10-bridge.conflist").write_text(json.dumps(network))


@contextmanager
def _daemon(directory: Path) -> Iterator[subprocess.Popen[bytes]]:
    with (directory / "containerd.log").open("wb") as log:
        process = subprocess.Popen(
            # A test run that is killed takes it with it.
            ["setpriv", "--pdeathsig", "TERM",
             "containerd", "--config", directory / "config.toml"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={"PATH": os.environ["PATH"]},
        )  # fmt: skip
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_ready(server: ContainerdServer, daemon: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while not _is_ready(server):
        if daemon.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"containerd: {(server.directory / 'containerd.log').read_text()}")
        time.sleep(0.05)


def _is_ready(server: ContainerdServer) -> bool:
    """Whether it answers, and has found its network. Later versions have more conditions."""
    try:
        conditions = server.cri.runtime("Status")["status"]["conditions"]
    except grpc.RpcError:
        return False
    met = {each["type"] for each in conditions if each.get("status", False)}
    return {"RuntimeReady", "NetworkReady"} <= met


def _import_images(server: ContainerdServer) -> None:
    archive = server.directory / "images.tar"
    write_images(archive)
    subprocess.run(
        ["ctr", "--address", server.socket, "--namespace", NAMESPACE, "images", "import", archive],
        check=True,
        capture_output=True,
    )
    archive.unlink()
    deadline = time.monotonic() + READY_SECONDS
    # The CRI learns of images by events.
    while not all(
        server.cri.image("ImageStatus", {"image": {"image": name}}).get("image")
        for name in (IMAGE, PAUSE_IMAGE)
    ):
        if time.monotonic() > deadline:
            raise RuntimeError("containerd's CRI does not see the images")
        time.sleep(0.02)
