"""What makes pods of a Kubernetes API server real on one node: a scheduler and a kubelet, in short.

Each pod that a client of the stand-in API server makes is "scheduled" to the node if its affinity
lets it, made through the CRI of a real containerd, and reported as running.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bench.reports import Counter
from tests.restore_nodes import RestoreNode
from tests.servers.cri_pods import ContainerSpec, Pod
from tests.servers.kubernetes import KubernetesServer
from tests.waiting import eventually


@dataclass
class Kubelet:
    """``pods`` are those that it has made, by their names; ``between`` is called after each pod's
    first container.
    """

    kubernetes: KubernetesServer
    node: RestoreNode
    name: str
    pods: dict[str, Pod] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    between: Callable[[], object] = lambda: None

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self.kubernetes.on_pod_created.append(self._created)

    def run(self, name: str, spec: Mapping[str, Any]) -> Pod:
        """Have a user make a pod, and wait until it runs."""
        pod = {"metadata": {"name": name, "namespace": "default"}, "spec": dict(spec)}
        self._created(self.kubernetes.put_pod(pod))
        return self.wait(name)

    def wait(self, name: str) -> Pod:
        """A pod that runs."""
        eventually(lambda: name in self.pods or self.failures, f"pod {name} running")
        assert not self.failures
        return self.pods[name]

    def delete(self, name: str) -> None:
        """A pod is deleted, and gone."""
        self.pods.pop(name).remove()
        self.kubernetes.store.remove("pods", "default", name, now=True)

    def _created(self, pod: dict[str, Any]) -> None:
        metadata, spec = pod["metadata"], pod["spec"]
        try:
            self._schedule(spec)
            first, *others = (_container(spec, each) for each in spec["containers"])
            made = self.node.run(
                metadata["name"],
                [first],
                namespace=metadata["namespace"],
                uid=metadata["uid"],
                annotations=metadata.get("annotations"),
            )
            self.between()
            for each in others:
                made.start(each)
        except Exception as error:
            self.failures.append(f"{metadata['name']}: {error}")
            raise
        with self._lock:
            self.pods[metadata["name"]] = made
        place, name = metadata["namespace"], metadata["name"]
        self.kubernetes.store.change(
            "pods", place, name, lambda stored: stored["spec"].update(nodeName=self.name)
        )
        self.kubernetes.set_running(place, name)

    def _schedule(self, spec: Mapping[str, Any]) -> None:
        """Raises AssertionError unless the pod may run on this node, and only by our runtime."""
        affinity = spec.get("affinity", {}).get("nodeAffinity", {})
        required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution", {})
        for term in required.get("nodeSelectorTerms", []):
            for wanted in term.get("matchFields", []):
                assert wanted["operator"] == "In", wanted
                assert self.name in wanted["values"], wanted
        assert spec["runtimeClassName"] == "checkpoint-runc"


def _container(spec: Mapping[str, Any], container: Mapping[str, Any]) -> ContainerSpec:
    volumes = {volume["name"] for volume in spec.get("volumes", []) if "emptyDir" in volume}
    mounts = container.get("volumeMounts", [])
    return ContainerSpec(
        container["name"],
        env={each["name"]: each["value"] for each in container.get("env", [])},
        volumes={each["name"]: each["mountPath"] for each in mounts if each["name"] in volumes},
    )


def counted(pod: Pod) -> dict[str, int]:
    """How far each container has counted; it counts on meanwhile."""
    for name in pod.containers:
        pod.report(name).wait_beyond(Counter.TICKS, pod.counter(name) + 5)
    return {name: pod.counter(name) for name in pod.containers}
