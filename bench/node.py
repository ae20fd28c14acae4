"""A daemon with a broker of its own, and a client that publishes actions and hears what becomes."""

from __future__ import annotations

import asyncio
import json
import os
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg

from bench.command import Document
from tests.daemons import Daemon, daemon_in
from tests.servers.nats import nats_server

CLUSTER, NODE = "bench", "node"
TERMINAL = ("ready", "error")
PATIENCE = 120.0


class ActionFailed(Exception):
    """An action ended with an error that the measure did not expect."""


@dataclass(slots=True)
class Node:
    """The daemon's process, and a client on its broker."""

    daemon: Daemon
    client: Client
    _ended: dict[str, asyncio.Future[tuple[float, Document]]] = field(default_factory=dict)

    async def run(self, spec: Document) -> tuple[float, Document]:
        """One checkpoint through to its end: the seconds since it was published, and the event."""
        began = time.monotonic()
        ended, event = await (await self.publish(spec))
        if event["state"] != "ready":
            raise ActionFailed(json.dumps(event))
        return ended - began, event

    async def publish(self, spec: Document) -> asyncio.Future[tuple[float, Document]]:
        """Publish a checkpoint; the future gets the moment of its last event, and that event."""
        action = uuid.uuid4().hex
        future = asyncio.get_running_loop().create_future()
        self._ended[action] = future
        message = json.dumps({"actionId": action, "checkpoint": spec}).encode()
        await self.client.publish(f"actions.{CLUSTER}.{NODE}.checkpoint", message)
        return future

    async def hear(self, message: Msg) -> None:
        """An event."""
        event = json.loads(message.data)
        if event["state"] in TERMINAL:
            future = self._ended.get(event["actionId"])
            if future is not None and not future.done():
                future.set_result((time.monotonic(), event))

    def resident_bytes(self) -> int:
        """Of the daemon's process."""
        pages = Path(f"/proc/{self._pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGESIZE")

    def cpu_seconds(self) -> float:
        """That the daemon has used so far, in user and system mode."""
        fields = Path(f"/proc/{self._pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def _pid(self) -> int:
        if self.daemon.process is None:
            raise RuntimeError("the daemon is not running")
        return self.daemon.process.pid


@asynccontextmanager
async def node(directory: Path, runc_root: Path, store: Path) -> AsyncIterator[Node]:
    """A broker and a daemon that looks for pods in ``runc_root``; both are gone afterwards."""
    await asyncio.to_thread(directory.mkdir)
    with nats_server(directory) as server:
        tables: dict[str, dict[str, object]] = {
            "node": {"cluster": CLUSTER, "name": NODE},
            "nats": {"url": server.url},
            "storage": {"store": str(store)},
            "pods": {"runc_roots": [str(runc_root)]},
            "log": {"level": "info"},
        }
        with daemon_in(directory, tables) as daemon:
            daemon.start()
            await asyncio.to_thread(daemon.wait_ready)
            client = await nats.connect(server.url)
            try:
                made = Node(daemon, client)
                await client.subscribe("action-events.>", cb=made.hear)
                yield made
            finally:
                await client.close()
                with suppress(ProcessLookupError):
                    await asyncio.to_thread(daemon.stop)
