"""The service of proto/checkpoint_agent/v1/agent.proto, put together from its three subjects."""

from __future__ import annotations

from agent.actions import Executor, Freezes
from agent.pb.checkpoint_agent.v1.agent_pb2_grpc import AgentServicer
from agent.rpc.actions import ActionCalls
from agent.rpc.background import Background
from agent.rpc.checkpoints import CheckpointCalls
from agent.rpc.node import NodeCalls, NodeInfo
from agent.settings import Settings


class Service(ActionCalls, NodeCalls, CheckpointCalls, AgentServicer):
    """Every call. Errors leave it as AgentError; agent.rpc.interceptor makes statuses of them."""

    def __init__(
        self, settings: Settings, executor: Executor, freezes: Freezes, node_info: NodeInfo
    ) -> None:
        """``node_info`` tells what the node is now, with or without an event stream."""
        self.background = Background()
        node = settings.node
        ActionCalls.__init__(self, executor, self.background, cluster=node.cluster, node=node.name)
        NodeCalls.__init__(self, node_info, freezes, self.background)
        CheckpointCalls.__init__(self, settings.storage, self.background)

    async def close(self) -> None:
        """Return when nothing of any call is left to be done."""
        await self.background.settle()
        self.close_reads()
