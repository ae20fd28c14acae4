"""The nodes that are there, and their pods."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from agent.api.auth import Reader
from agent.api.errors import EventStreamFailed
from agent.api.parts import Here
from agent.api.routes.answering import refusals
from agent.pb.checkpoint_agent.v1 import inventory_pb2 as pb

router = APIRouter(prefix="/v2/nodes", tags=["Nodes"])


@router.get(
    "",
    operation_id="list_nodes",
    summary="List nodes",
    responses=refusals(s500="Failed to connect to the event stream"),
)
async def list_nodes(parts: Here, caller: Reader) -> list[dict[str, Any]]:
    """By cluster and name, each with its pods and GPUs."""
    live = parts.control.nodes.live()
    if not parts.control.ready:
        raise EventStreamFailed(parts.control.problem)
    return [_node(info) for info in sorted(live, key=lambda info: (info.cluster, info.node))]


def _node(info: pb.NodeInfo) -> dict[str, Any]:
    return {
        "cluster": info.cluster,
        "node": info.node,
        "agent_version": info.agent_version,
        "started": info.started.ToJsonString() if info.HasField("started") else None,
        "kernel": info.kernel,
        "platform": info.platform,
        "criu": info.criu,
        "runc": info.runc,
        "running": info.running,
        "queued": info.queued,
        "pods": [_pod(pod) for pod in info.pods],
        "gpus": [
            {"uuid": gpu.uuid, "model": gpu.model, "memory": gpu.memory, "driver": gpu.driver}
            for gpu in info.gpus
        ],
    }


def _pod(pod: pb.Pod) -> dict[str, Any]:
    return {
        "uid": pod.ref.uid,
        "namespace": pod.ref.namespace,
        "name": pod.ref.name,
        "runtime": pod.runtime,
        "containers": [
            {
                "name": each.name,
                "image": each.image,
                "status": each.status,
                "checkpoint_name": each.checkpoint_name or None,
            }
            for each in pod.containers
        ],
    }
