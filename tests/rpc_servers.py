"""A gRPC server of a test's own, with the real executor, on real sockets, in the test's loop."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
from grpc import aio

import agent.rpc  # noqa: F401 - before grpc, as everywhere
from agent.actions import Executor, Freezes
from agent.messages.events import timestamp
from agent.messages.model import State
from agent.metrics import Metrics
from agent.pb.checkpoint_agent.v1 import inventory_pb2
from agent.pb.checkpoint_agent.v1.actions_pb2 import PodRef
from agent.pb.checkpoint_agent.v1.agent_pb2_grpc import AgentStub
from agent.rpc.server import Server
from agent.rpc.service import Service
from agent.settings import Checkpoint, Node, Pods, Rpc, Settings, Storage
from tests.fakes.held_worker import HeldWorker
from tests.servers.certificates import Authority, Certificate
from tests.waiting import eventually_async

if TYPE_CHECKING:
    from agent.actions.worker import Worker
    from agent.pb.checkpoint_agent.v1.agent_pb2_grpc import AgentAsyncStub


@dataclass(frozen=True, slots=True)
class Running:
    """A server that is ready, and what is behind it."""

    settings: Settings
    executor: Executor
    freezes: Freezes
    server: Server
    worker: HeldWorker

    @property
    def address(self) -> str:
        """Of its unix socket."""
        return f"unix:{self.settings.rpc.socket}"

    @asynccontextmanager
    async def stub(self) -> AsyncIterator[AgentAsyncStub]:
        """A plain client, as any language's generator makes it."""
        async with aio.insecure_channel(self.address) as channel:
            yield AgentStub(channel)

    async def becomes(self, action_id: str, state: State) -> None:
        """Wait until an action is in this state."""

        async def there() -> bool:
            return (await self.executor.get(action_id)).state is state

        await eventually_async(there, f"{action_id} being {state}")


def settings_in(directory: Path, **rpc: object) -> Settings:
    """Settings that keep everything below ``directory`` and wait for no broker; [rpc] is extra."""
    (directory / "state").mkdir(exist_ok=True)
    return Settings(
        state_dir=directory / "state",
        node=Node(cluster="test", name="node"),
        storage=Storage(store=str(directory / "store")),
        checkpoint=Checkpoint(queue_limit=5),
        pods=Pods(runc_roots=(directory / "runc",)),
        rpc=Rpc.model_validate({"socket": directory / "agent.sock", **rpc}),
    )


@asynccontextmanager
async def running(settings: Settings, worker: Worker | None = None) -> AsyncIterator[Running]:
    """A server in a state_dir of its own; nothing of it outlives the block."""
    held = HeldWorker()
    executor = Executor(settings, worker or held, Metrics("test"))
    # The last one entered goes first, and one that fails at its end keeps no other from it.
    async with AsyncExitStack() as stack:
        stack.push_async_callback(executor.close)
        await executor.start()
        freezes = Freezes(
            state_dir=settings.state_dir,
            runc_roots=settings.pods.runc_roots,
            limit_seconds=settings.rpc.freeze_limit_seconds,
        )
        server = Server(Service(settings, executor, freezes, _node_info), settings.rpc)
        stack.push_async_callback(server.stop, 0)
        stack.push_async_callback(executor.stop, 0)
        stack.push_async_callback(freezes.stop)
        stack.callback(held.release.set)
        await server.start()
        await server.ready()
        yield Running(settings, executor, freezes, server, held)


async def _node_info() -> inventory_pb2.NodeInfo:
    pods = [
        inventory_pb2.Pod(
            ref=PodRef(uid=f"uid-{name}", namespace=namespace, name=name),
            runtime="containerd",
            containers=[inventory_pb2.PodContainer(name="main", id="0123456789abcdef")],
        )
        for namespace, name in (("default", "web"), ("kube-system", "dns"))
    ]
    return inventory_pb2.NodeInfo(
        cluster="test",
        node="node",
        agent_version="1.2.3",
        started=timestamp(datetime.now(UTC)),
        pods=pods,
        gpus=[inventory_pb2.Gpu(model="H100", memory=80 << 30)],
        running=1,
        queued=2,
    )


@asynccontextmanager
async def short_directory() -> AsyncIterator[Path]:
    """One whose path leaves room for a socket's name, and which only root can enter."""
    made = Path(tempfile.mkdtemp(prefix="ca-"))
    try:
        yield made
    finally:
        shutil.rmtree(made)


@dataclass(frozen=True, slots=True)
class Certificates:
    """An authority, and what it has signed for a server and a client."""

    authority: Authority
    server: Certificate
    client: Certificate

    def rpc(self) -> dict[str, object]:
        """Settings of [rpc] for TCP on a port that the system chooses."""
        return {
            "address": "127.0.0.1:0",
            "tls_cert": self.server.cert,
            "tls_key": self.server.key,
            "tls_client_ca": self.authority.path,
        }

    def credentials(self, client: Certificate | None = None) -> grpc.ChannelCredentials:
        """A client's; with its own certificate unless told otherwise."""
        shown = client or self.client
        return grpc.ssl_channel_credentials(
            self.authority.path.read_bytes(), shown.key.read_bytes(), shown.cert.read_bytes()
        )


def certificates_in(directory: Path) -> Certificates:
    """New ones."""
    authority = Authority(directory)
    return Certificates(authority, authority.issue("agent.test"), authority.issue("operator.test"))
