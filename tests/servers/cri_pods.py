"""Pods as a kubelet makes them: a sandbox, its containers, their volumes."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from bench.bundle import COUNTER, Workload
from bench.reports import Counter, Report
from bench.spec import MASKED, READ_ONLY
from tests.servers.cri_api import Json
from tests.servers.cri_image import IMAGE

if TYPE_CHECKING:
    from tests.servers.containerd import ContainerdServer

# A kubelet's own, for pods that say nothing else: processes see their own container's only.
_NAMESPACES = {"network": "POD", "pid": "CONTAINER", "ipc": "POD"}


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """A container to be.

    Attributes:
        workload: what it runs; reports to a file in its root filesystem, as in bench/.
        env: its environment, CHECKPOINT_NAME for one.
        volumes: emptyDir volumes of the pod by name, with the path they are mounted at. Containers
            of a pod that use the same name share the directory.
        command: run this instead of the workload, which then does not report.
        terminal: whether its first process has one.
    """

    name: str
    workload: Workload = COUNTER
    env: Mapping[str, str] = field(default_factory=dict)
    volumes: Mapping[str, str] = field(default_factory=dict)
    command: Sequence[str] = ()
    terminal: bool = False


@dataclass(slots=True)
class Pod:
    """A pod that runs until it is removed, at the latest with its server.

    Attributes:
        containers: the id of each container that runs, by its name in the pod.
        sandbox_id: the id of the sandbox (the `pause` container).
    """

    server: ContainerdServer
    name: str
    namespace: str
    uid: str
    sandbox_id: str
    config: Json
    containers: dict[str, str] = field(default_factory=dict)
    _specs: dict[str, ContainerSpec] = field(default_factory=dict)
    _attempts: dict[str, int] = field(default_factory=dict)

    def bundle(self, container: str) -> Path:
        """The OCI bundle of a container; its root filesystem is mounted at ``rootfs`` in it."""
        return self.server.bundle(self.containers[container])

    def sandbox_spec(self) -> Json:
        """The OCI configuration of its sandbox."""
        spec: Json = json.loads((self.server.bundle(self.sandbox_id) / "config.json").read_text())
        return spec

    def report(self, container: str) -> Report:
        """What a container's workload tells, readable and writable while it runs."""
        workload = self._specs[container].workload
        return Report(self.bundle(container) / "rootfs" / "state" / workload.name)

    def counter(self, container: str) -> int:
        """How far a container that runs the counter has counted."""
        return self.report(container).read(Counter.TICKS)

    def volume(self, name: str) -> Path:
        """Where an emptyDir volume of the pod lies on the host."""
        return self._directory() / "volumes" / "kubernetes.io~empty-dir" / name

    def shm(self) -> Path:
        """Where the pod's /dev/shm is mounted on the host."""
        return (
            self.server.state_dir / "io.containerd.grpc.v1.cri/sandboxes" / self.sandbox_id / "shm"
        )

    def execute(self, container: str, *command: str) -> str:
        """Run a command in a container and return its output, errors included.

        Raises:
            AssertionError: it ended with an error; the text is its output.
        """
        return self.server.cri.execute(self.containers[container], *command)

    def start(self, spec: ContainerSpec) -> str:
        """Start a container in the pod, wait until its workload is up, and return its id.

        One of the same name has to be stopped first; this one is its restart then.
        """
        container_id = self.begin(spec)
        if not spec.command:
            self.report(spec.name).wait_ready()
        return container_id

    def begin(self, spec: ContainerSpec) -> str:
        """The same without waiting for its workload."""
        # Names of containers are unique in containerd, and the sandbox is no part of them.
        attempt = self._attempts.get(spec.name, self.config["metadata"]["attempt"] - 1) + 1
        request = {
            "pod_sandbox_id": self.sandbox_id,
            "config": self._container_config(spec, attempt),
            "sandbox_config": self.config,
        }
        container_id = str(self.server.cri.runtime("CreateContainer", request)["container_id"])
        self.containers[spec.name] = container_id
        self._specs[spec.name], self._attempts[spec.name] = spec, attempt
        self.server.cri.runtime("StartContainer", {"container_id": container_id})
        return container_id

    def stop(self, container: str) -> None:
        """Kill a container. The pod goes on, and still has it, stopped."""
        request = {"container_id": self.containers.pop(container), "timeout": 0}
        self.server.cri.runtime("StopContainer", request)

    def restart(self, container: str) -> str:
        """Kill a container and start it again, with another id, which is returned."""
        self.stop(container)
        return self.start(self._specs[container])

    def remove(self) -> None:
        """Stop and remove the pod with all its containers, network and /dev/shm."""
        request = {"pod_sandbox_id": self.sandbox_id}
        self.server.cri.runtime("StopPodSandbox", request)
        self.server.cri.runtime("RemovePodSandbox", request)
        self.containers.clear()

    def _container_config(self, spec: ContainerSpec, attempt: int) -> Json:
        mounts = []
        for name, path in spec.volumes.items():
            self.volume(name).mkdir(parents=True, exist_ok=True)
            mounts.append({"container_path": path, "host_path": str(self.volume(name))})
        message = self._directory() / "containers" / spec.name / f"{attempt:08x}"
        message.parent.mkdir(parents=True, exist_ok=True)
        message.touch()
        (Path(self.config["log_directory"]) / spec.name).mkdir(parents=True, exist_ok=True)
        mounts.append({"container_path": "/dev/termination-log", "host_path": str(message)})
        return {
            "metadata": {"name": spec.name, "attempt": attempt},
            "image": {"image": IMAGE},
            "command": list(spec.command) or spec.workload.command(),
            "envs": [{"key": key, "value": value} for key, value in spec.env.items()],
            "mounts": mounts,
            "tty": spec.terminal,
            "log_path": f"{spec.name}/{attempt}.log",
            "labels": {**self.config["labels"], "io.kubernetes.container.name": spec.name},
            "linux": {
                "resources": {},
                "security_context": {
                    "namespace_options": _NAMESPACES,
                    "masked_paths": MASKED,
                    "readonly_paths": READ_ONLY,
                },
            },
        }

    def _directory(self) -> Path:
        return self.server.kubelet_dir / "pods" / self.uid


def sandbox_config(name: str, namespace: str, uid: str, cgroup: str, attempt: int = 0) -> Json:
    """What a kubelet asks of the runtime for a pod."""
    return {
        "metadata": {"name": name, "namespace": namespace, "uid": uid, "attempt": attempt},
        "hostname": name,
        "labels": {
            "io.kubernetes.pod.name": name,
            "io.kubernetes.pod.namespace": namespace,
            "io.kubernetes.pod.uid": uid,
        },
        "linux": {
            "cgroup_parent": f"/{cgroup}/pod{uid}",
            "security_context": {"namespace_options": _NAMESPACES},
        },
    }


def new_uid() -> str:
    """A UID as the Kubernetes API makes them."""
    return str(uuid.uuid4())
