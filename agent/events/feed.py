"""Reading ACTION_EVENTS from a place on that the reader keeps in mind."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import Final

from nats.aio.client import Client
from nats.js import JetStreamContext, api

from agent.events import subjects
from agent.events.reader import Reader, ReaderGone
from agent.events.stored import StoredEvent, stored_event

# Messages that are read before others have the loop: some 3 ms. Hundreds take a tenth of a second;
# after each single one, all others together took that long, hundreds of times.
AT_ONCE: Final = 16


@dataclass(frozen=True, slots=True)
class Position:
    """Up to where a stream has been read.

    ``stream`` tells it from another one that had the same name; "" is none yet. ``sequence`` is the
    place of the last message that was read; 0 is none.
    """

    stream: str
    sequence: int


@dataclass(frozen=True, slots=True)
class Batch:
    """Messages in the order of the stream, and the position to go on from.

    ``at_end`` says that nothing else was there when they were asked for.
    """

    position: Position
    events: tuple[StoredEvent, ...]
    at_end: bool


@dataclass(frozen=True, slots=True)
class _Place:
    """A reader, and what it has brought so far."""

    reader: Reader
    position: Position


class Feed:
    """For one session. Whoever goes on where it was keeps its reader."""

    def __init__(self, client: Client, js: JetStreamContext) -> None:
        self._client = client
        self._js = js
        self._kept: _Place | None = None

    async def read(self, position: Position, limit: int, wait_seconds: float) -> Batch:
        """The next messages, at most ``limit``; none only after waiting so long for one.

        Raises:
            BrokerFailed: it cannot be read now.
            nats.errors.Error: as above.
        """
        kept, self._kept = self._kept, None
        if kept is not None:
            if kept.position == position:
                with contextlib.suppress(ReaderGone):
                    return await self._read(kept, limit, wait_seconds)
            else:
                await kept.reader.close()
        return await self._read(await self._open(position), limit, wait_seconds)

    async def _open(self, position: Position) -> _Place:
        info = await self._js.stream_info(subjects.ACTION_EVENTS)
        stream = info.created.isoformat() if info.created is not None else ""
        # A stream that ends before that was read further than it now goes: its server has lost
        # power before it wrote the end, and gives the same numbers to other messages.
        same = stream == position.stream and position.sequence <= info.state.last_seq
        start = Position(stream, position.sequence if same else 0)
        config = api.ConsumerConfig(
            deliver_policy=api.DeliverPolicy.BY_START_SEQUENCE, opt_start_seq=start.sequence + 1
        )
        reader = await Reader.open(self._client, self._js, subjects.ACTION_EVENTS, config)
        return _Place(reader, start)

    async def _read(self, place: _Place, limit: int, wait_seconds: float) -> Batch:
        try:
            messages = await place.reader.fetch(limit, wait_seconds)
        except BaseException:
            await place.reader.close()
            raise
        after = place.position
        if messages:
            after = Position(after.stream, messages[-1].metadata.sequence.stream)
        if self._kept is not None:
            await self._kept.reader.close()
        self._kept = _Place(place.reader, after)
        events: list[StoredEvent] = []
        for message in messages:
            events.append(stored_event(message))
            if len(events) % AT_ONCE == 0:
                await asyncio.sleep(0)
        return Batch(after, tuple(events), place.reader.at_end)
