"""Keeping `Nodes` as the inventory is, for one session."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext, api

from agent.events import subjects
from agent.events.inventory import open_bucket
from agent.events.nodes import Nodes
from agent.events.reader import Reader
from agent.settings import Nats

# Entries asked for at a time.
BATCH: Final = 256
# Seconds without news until we ask again: so much later than the broker we forget a node.
WAIT_SECONDS: Final = 1.0
# Seconds between two answers. A thousand nodes renew a hundred entries in a second: one by one,
# each would cost a request.
LULL_SECONDS: Final = 0.1

_STREAM: Final = f"KV_{subjects.INVENTORY}"
_PREFIX: Final = f"$KV.{subjects.INVENTORY}."
# Headers of what a bucket keeps in place of an entry that was deleted, or that it has forgotten.
_REMOVED: Final = ("KV-Operation", "Nats-Marker-Reason")


async def watch(
    client: Client,
    js: JetStreamContext,
    settings: Nats,
    nodes: Nodes,
    complete: Callable[[], None],
) -> None:
    """Tell ``nodes`` all that happens, until the session ends.

    Args:
        complete: called when all that was there has been told.

    Raises:
        BrokerFailed: the bucket is gone, or the broker says nothing.
    """
    loop = asyncio.get_running_loop()
    bucket = await open_bucket(js, settings)
    nodes.begin((await bucket.status()).ttl or settings.lease_seconds)
    place = api.ConsumerConfig(
        deliver_policy=api.DeliverPolicy.LAST_PER_SUBJECT, filter_subject=f"{_PREFIX}>"
    )
    reader = await Reader.open(client, js, _STREAM, place)
    try:
        # How much the loop's clock is ahead of the broker's: entries may be as old as a lease.
        ahead = loop.time() - reader.created.timestamp()
        asked = loop.time()
        while not reader.at_end:
            asked = loop.time()
            for message in await reader.fetch(BATCH, 0):
                await _tell(nodes, message, ahead + message.metadata.timestamp.timestamp())
        nodes.complete(asked)
        complete()
        while True:
            asked = loop.time()
            for message in await reader.fetch(BATCH, WAIT_SECONDS):
                await _tell(nodes, message, loop.time())
            if reader.at_end:
                # Not now: news may have waited here while the loop was held up.
                nodes.heard(asked)
                await asyncio.sleep(LULL_SECONDS)
    finally:
        nodes.steady_since = None
        await reader.close()


async def _tell(nodes: Nodes, message: Msg, written: float) -> None:
    """``written``: at which time of the loop."""
    key = message.subject.removeprefix(_PREFIX)
    if any(header in (message.headers or {}) for header in _REMOVED):
        nodes.remove(key, written)
    else:
        nodes.renew(key, message.data, written)
        # A large one takes milliseconds, and others have the loop as well.
        await asyncio.sleep(0)
