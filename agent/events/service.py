"""Everything that the daemon does with the broker, in one object."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from nats.aio.client import Client

from agent.actions import Executor
from agent.events.connection import Connection, until_one_ends
from agent.events.consumer import Consumer
from agent.events.inventory import Inventory
from agent.events.publisher import Publisher
from agent.events.streams import ensure_consumers, ensure_streams, subjects_of
from agent.logs import get_logger
from agent.pb.checkpoint_agent.v1 import inventory_pb2 as pb
from agent.settings import Settings

log = get_logger(__name__)


class Events:
    """Begins with `run`; ends with `pause`, the executor's stop, and `stop`.

    Args:
        settings: name at least one server.
        node_info: what the inventory says of this node; called in a thread.
    """

    def __init__(
        self, settings: Settings, executor: Executor, node_info: Callable[[], pb.NodeInfo]
    ) -> None:
        self._settings = settings
        self._executor = executor
        node = settings.node
        self._connection = Connection(settings.nats, node.name)
        self._publisher = Publisher(executor.outbox, node.cluster)
        self._inventory = Inventory(settings.nats, node, node_info, settings.pods.runc_roots)
        self._consumer = Consumer(
            self._connection, self._publisher, executor, node, settings.checkpoint.queue_limit
        )
        self._stopping = asyncio.Event()
        self._stopped = asyncio.Event()

    @property
    def ready(self) -> bool:
        """Whether there is a broker, and all on it that is needed."""
        return self._connection.ready

    @property
    def problem(self) -> str:
        """Why it is not ready, without secrets; "" when it is."""
        return self._connection.problem

    async def run(self) -> None:
        """Serve until `stop`; a broker that is away is waited for, for ever."""
        try:
            await until_one_ends(self._connection.run(self._session), self._stopping.wait())
        finally:
            await self._consumer.stop()
            self._stopped.set()

    async def wait_ready(self, seconds: float) -> bool:
        """Wait until it is ready, or that time is up; whether it is."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                # Looked at, not waited for: it happens once in a daemon's life.
                while not self.ready:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
        return self.ready

    async def pause(self) -> None:
        """Take no new actions, and leave the inventory."""
        self._consumer.pause()
        await self._inventory.stop()
        # From then on the broker sends nothing that would only be left unanswered.
        await self._connection.flush()

    async def stop(self, flush_seconds: float) -> None:
        """End `run`, once all events are published or that time is up; they keep in the journal."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(flush_seconds):
                await self._flushed()
        self._stopping.set()
        await self._stopped.wait()

    async def _session(self, client: Client) -> None:
        settings = self._settings
        js = client.jetstream()
        await ensure_streams(js, settings.nats.replicas, subjects_of(settings.node))
        consumers = await ensure_consumers(js, settings.nats, settings.node)
        self._connection.set_up()
        await until_one_ends(
            self._publisher.run(js),
            self._consumer.run(client, js, consumers),
            self._inventory.run(js),
        )

    async def _flushed(self) -> None:
        # Looked at, not waited for: it happens once in a daemon's life.
        while await self._executor.outbox.depth() or self._consumer.acknowledging:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
