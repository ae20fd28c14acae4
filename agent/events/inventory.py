"""The node's entry in the inventory: a key-value bucket that forgets those who do not renew."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from nats.js import JetStreamContext, api
from nats.js.errors import BadRequestError, BucketNotFoundError
from nats.js.kv import KeyValue

from agent.events import subjects
from agent.events.connection import FAILURES
from agent.messages.requests import to_json
from agent.pb.checkpoint_agent.v1 import inventory_pb2 as pb
from agent.settings import Nats, Node

# Seconds between two looks at whether containers came or went: one stat for each runc root.
LOOK_SECONDS: Final = 1.0
# Looks after a change that are taken for one as well: a container's directory comes first, and what
# is to be read in it later.
SETTLING_LOOKS: Final = 2

# A lease is renewed so often within its time that one lost renewal does no harm.
RENEWALS: Final = 3

_DELETE_SECONDS: Final = 2.0


class Inventory:
    """Keeps the entry.

    Args:
        node_info: what the entry says; called in a thread.
        roots: runc's directories; when an entry comes or goes there, pods may have changed.
    """

    def __init__(
        self,
        settings: Nats,
        node: Node,
        node_info: Callable[[], pb.NodeInfo],
        roots: Sequence[Path],
    ) -> None:
        self._settings = settings
        self._key = subjects.inventory_key(node)
        self._node_info = node_info
        self._roots = roots
        self._bucket: KeyValue | None = None
        self._settling = 0
        self._stopped = False
        self._writing = asyncio.Lock()

    async def run(self, js: JetStreamContext) -> None:
        """Renew the entry for one session."""
        self._bucket = bucket = await open_bucket(js, self._settings)
        # An operator's bucket may forget sooner than ours.
        lease = (await bucket.status()).ttl or self._settings.lease_seconds
        period = min(lease, self._settings.lease_seconds) / RENEWALS
        try:
            while True:
                info = await asyncio.to_thread(self._node_info)
                async with self._writing:
                    if not self._stopped:
                        await bucket.put(self._key, to_json(info))
                await self._until_due(period)
        finally:
            self._bucket = None

    async def stop(self) -> None:
        """Write the entry no more, and delete it if there is a session."""
        self._stopped = True
        with contextlib.suppress(*FAILURES):
            async with asyncio.timeout(_DELETE_SECONDS), self._writing:
                if self._bucket is not None:
                    await self._bucket.delete(self._key)

    async def _until_due(self, period: float) -> None:
        """Return after ``period`` seconds, or sooner when containers came or went."""
        if self._settling:
            self._settling -= 1
            period = min(period, LOOK_SECONDS)
        loop = asyncio.get_running_loop()
        due = loop.time() + period
        seen = self._seen()
        while (left := due - loop.time()) > 0:
            await asyncio.sleep(min(left, LOOK_SECONDS))
            if self._seen() != seen:
                self._settling = SETTLING_LOOKS
                return

    def _seen(self) -> tuple[int, ...]:
        return tuple(_changed(root) for root in self._roots)


def _changed(root: Path) -> int:
    """When an entry last came or went there; 0 where there is no such directory."""
    try:
        return root.stat().st_mtime_ns
    except OSError:
        return 0


async def open_bucket(js: JetStreamContext, settings: Nats) -> KeyValue:
    """The bucket that all entries are in; made where there is none."""
    try:
        return await js.key_value(subjects.INVENTORY)
    except BucketNotFoundError:
        pass
    config = api.KeyValueConfig(
        bucket=subjects.INVENTORY,
        description="Nodes that take actions, and their pods",
        ttl=settings.lease_seconds,
        replicas=settings.replicas,
    )
    try:
        return await js.create_key_value(config)
    except BadRequestError:
        # Another node was faster, and has another lease.
        return await js.key_value(subjects.INVENTORY)
