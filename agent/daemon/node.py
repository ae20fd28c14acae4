"""What this node is and what runs on it, as the inventory and gRPC tell it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from agent import __version__
from agent.daemon.gpus import NodeGpus
from agent.host.facts import platform_name
from agent.manifest import Host
from agent.messages.events import timestamp
from agent.messages.requests import pod_message
from agent.pb.checkpoint_agent.v1 import inventory_pb2 as pb
from agent.pods import FoundPod, list_pods
from agent.settings import Settings


class Node:
    """Facts that stay, and pods and figures that change."""

    def __init__(
        self,
        settings: Settings,
        host: Host,
        counts: Callable[[], tuple[int, int]],
        gpus: NodeGpus,
    ) -> None:
        """``counts``: actions being worked on, and waiting."""
        self._settings, self._host, self._counts, self._gpus = settings, host, counts, gpus
        self._started = datetime.now(UTC)

    def info(self) -> pb.NodeInfo:
        """As of now. Reads every container's state: not for the loop's thread."""
        pods = list_pods(self._settings.pods.runc_roots)
        running, queued = self._counts()
        return pb.NodeInfo(
            cluster=self._settings.node.cluster,
            node=self._settings.node.name,
            agent_version=__version__,
            started=timestamp(self._started),
            kernel=self._host.kernel,
            platform=platform_name(),
            criu=self._host.criu,
            runc=self._host.runc or "",
            pods=[found_pod_message(pod, self._gpus.used_by(pod)) for pod in pods],
            gpus=[
                pb.Gpu(
                    uuid=gpu.uuid,
                    model=gpu.model,
                    memory=gpu.memory_bytes,
                    driver=self._gpus.inventory.driver,
                )
                for gpu in self._gpus.inventory.gpus
            ],
            running=running,
            queued=queued,
        )


def found_pod_message(pod: FoundPod, gpus: Sequence[str] = ()) -> pb.Pod:
    """A pod of this machine; ``gpus`` are the UUIDs of those that it uses."""
    return pb.Pod(
        gpus=gpus,
        ref=pod_message(pod.ref),
        runtime=pod.runtime,
        sandbox_id=pod.sandbox_id,
        containers=[
            pb.PodContainer(
                name=container.name,
                id=container.target.container,
                runc_root=str(container.target.root),
                image=container.image,
                status=container.status,
                checkpoint_name=container.checkpoint_name or "",
            )
            for container in pod.containers
        ],
    )
