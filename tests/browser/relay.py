"""A way from a network of its own to a server in ours.

Chromium gives up whatever it is asking for when an interface comes or goes, also when it asks the
loopback (`net::ERR_NETWORK_CHANGED`), and tests beside these make pods. So the browser has a
network in which nothing changes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.networks import socket_in

_CHUNK = 64 << 10


@asynccontextmanager
async def relayed(network: Path, port: int) -> AsyncIterator[None]:
    """What listens on this port of our loopback is reached on the same one of the network's."""
    relays: set[asyncio.Task[None]] = set()

    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        relays.add(task)
        try:
            await _relay(reader, writer, port)
        finally:
            relays.discard(task)

    listener = socket_in(network)
    listener.bind(("127.0.0.1", port))
    async with await asyncio.start_server(accepted, sock=listener):
        yield
        for relay in relays:
            relay.cancel()


async def _relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
    try:
        beyond_reader, beyond_writer = await asyncio.open_connection("127.0.0.1", port)
        async with asyncio.TaskGroup() as both:
            both.create_task(_copy(reader, beyond_writer))
            both.create_task(_copy(beyond_reader, writer))
    finally:
        writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Until one of them is closed; then so is the other one."""
    try:
        while data := await reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()
