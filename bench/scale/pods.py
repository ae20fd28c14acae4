"""Nodes that exist only on the broker, and their pods: who they are, by number."""

from __future__ import annotations

import uuid

from agent import __version__
from agent.pb.checkpoint_agent.v1 import actions_pb2, inventory_pb2

CLUSTER = "scale"

# Of each pod.
CONTAINERS = ("app", "side")


def node_name(node: int) -> str:
    """A node's."""
    return f"node-{node:04}"


def pod_name(node: int, pod: int) -> str:
    """The name of one of a node's pods."""
    return f"web-{node:04}-{pod}"


def namespace_of(node: int) -> str:
    """Where all pods of a node are."""
    return f"team-{node % 20}"


def pod_uid(node: int, pod: int) -> str:
    """As the Kubernetes API makes them, but always the same."""
    return str(uuid.uuid5(uuid.NAMESPACE_DNS, pod_name(node, pod)))


def node_info(node: int, pods: int, running: int, queued: int) -> inventory_pb2.NodeInfo:
    """What a node says of itself in the inventory."""
    return inventory_pb2.NodeInfo(
        cluster=CLUSTER,
        node=node_name(node),
        agent_version=__version__,
        kernel="6.1.0-18-amd64",
        platform="linux/amd64",
        criu="4.2",
        runc="1.3.0",
        pods=[_pod(node, pod) for pod in range(pods)],
        running=running,
        queued=queued,
    )


def _pod(node: int, pod: int) -> inventory_pb2.Pod:
    uid, name = pod_uid(node, pod), pod_name(node, pod)
    return inventory_pb2.Pod(
        ref=actions_pb2.PodRef(uid=uid, namespace=namespace_of(node), name=name),
        runtime="containerd",
        sandbox_id=uid,
        containers=[
            inventory_pb2.PodContainer(
                name=container,
                id=f"{uid}-{container}",
                runc_root="/run/containerd/runc/k8s.io",
                image=f"registry.example/{container}:1.27",
                status="running",
            )
            for container in CONTAINERS
        ],
    )
