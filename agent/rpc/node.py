"""The calls about the node: what it is, what runs on it, and keeping that frozen for a while."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from agent import actions
from agent.errors import InvalidArgument
from agent.logs import get_logger
from agent.messages.events import timestamp
from agent.messages.requests import container_from, pod_from
from agent.pb.checkpoint_agent.v1 import agent_pb2 as pb
from agent.pb.checkpoint_agent.v1 import inventory_pb2
from agent.rpc.background import Background
from agent.targets import PodRef, RuncTarget

# What the node is at the moment, its pods included.
NodeInfo = Callable[[], Awaitable[inventory_pb2.NodeInfo]]

_log = get_logger(__name__)


class NodeCalls:
    """ListPods, GetNodeInfo, Freeze, Thaw."""

    def __init__(
        self, node_info: NodeInfo, freezes: actions.Freezes, background: Background
    ) -> None:
        self._node_info = node_info
        self._freezes = freezes
        self._background = background

    async def ListPods(self, request: pb.ListPodsRequest, _context: object) -> pb.ListPodsResponse:
        """The node's pods, of one namespace or of all."""
        node = await self._node_info()
        wanted = request.namespace
        return pb.ListPodsResponse(
            pods=[pod for pod in node.pods if wanted in ("", pod.ref.namespace)]
        )

    async def GetNodeInfo(
        self, _request: pb.GetNodeInfoRequest, _context: object
    ) -> inventory_pb2.NodeInfo:
        """The node as its inventory entry describes it, but as of now."""
        return await self._node_info()

    async def Freeze(self, request: pb.FreezeRequest, _context: object) -> pb.FreezeResponse:
        """Stop every task of a pod or container, for a limited time."""
        target = _target(request)
        if not request.HasField("limit"):
            raise InvalidArgument("limit", "is missing: nothing is frozen without a time limit")
        limit = request.limit.seconds + request.limit.nanos / 1e9
        freezing = asyncio.ensure_future(self._freezes.freeze(target, limit))
        try:
            frozen = await asyncio.shield(freezing)
        except asyncio.CancelledError:
            # Nobody has the id to thaw it with.
            self._background.start(self._take_back(freezing))
            raise
        _log.info("frozen", freeze_id=frozen.freeze_id, target=str(target), seconds=limit)
        return pb.FreezeResponse(
            freeze_id=frozen.freeze_id,
            until=timestamp(frozen.until),
            containers=frozen.containers,
        )

    async def Thaw(self, request: pb.ThawRequest, _context: object) -> pb.ThawResponse:
        """Let it run again."""
        if not request.freeze_id:
            raise InvalidArgument("freezeId", "is missing")
        thawed = await self._freezes.thaw(request.freeze_id)
        _log.info("thawed", freeze_id=request.freeze_id, was_frozen=thawed.was_frozen)
        return pb.ThawResponse(frozen_seconds=thawed.frozen_seconds, was_frozen=thawed.was_frozen)

    async def _take_back(self, freezing: asyncio.Future[actions.Freeze]) -> None:
        frozen = await freezing
        await self._freezes.thaw(frozen.freeze_id)


def _target(request: pb.FreezeRequest) -> PodRef | RuncTarget:
    which = request.WhichOneof("target")
    if which == "pod":
        return pod_from(request.pod, "pod")
    if which == "container":
        return container_from(request.container, "container")
    raise InvalidArgument("target", "give `pod` or `container`")
