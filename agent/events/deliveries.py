"""Messages that were taken from the broker and are not acknowledged yet.

They outlive the session that brought them: a broker that restarts gives them again, and they are
recognised by their place in the stream.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from nats.aio.client import Client
from nats.aio.msg import Msg

from agent.errors import AgentError
from agent.logs import get_logger

log = get_logger(__name__)

ACK: Final = b"+ACK"
# Not again, and an advisory for operators.
TERMINATE: Final = b"+TERM"
_IN_PROGRESS: Final = b"+WPI"


@dataclass(slots=True)
class Delivery:
    """One message.

    ``sequence`` is its place in the stream, ``count`` how often it was given; ``answered`` says
    that only its acknowledgement is missing.
    """

    sequence: int
    count: int
    reply: str
    answered: bool = False


# Sees one message through to its answer, and returns what it is to be acknowledged with. After an
# AgentError it is not: it comes again.
Handler = Callable[[Delivery, Msg], Awaitable[bytes]]


class Deliveries:
    """Those of one consumer, at most ``limit`` at a time.

    Args:
        send: how an acknowledgement gets to the broker, whenever there is one again.
    """

    def __init__(
        self, limit: int, handler: Handler, send: Callable[[str, bytes], Awaitable[None]]
    ) -> None:
        self._limit = limit
        self._handler = handler
        self._send = send
        self._open: dict[int, Delivery] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._ended = asyncio.Event()

    def __len__(self) -> int:
        return len(self._open)

    @property
    def answered(self) -> int:
        """How many wait for nothing but their acknowledgement."""
        return sum(delivery.answered for delivery in self._open.values())

    async def room(self) -> int:
        """How many more may be taken, once that is at least one."""
        while (room := self._limit - len(self._open)) < 1:
            self._ended.clear()
            await self._ended.wait()
        return room

    def take(self, message: Msg) -> None:
        """Begin to see a message through, unless that is being done already."""
        metadata = message.metadata
        sequence = metadata.sequence.stream
        known = self._open.get(sequence)
        if known is not None:
            known.count, known.reply = metadata.num_delivered, message.reply
            return
        delivery = Delivery(sequence, metadata.num_delivered, message.reply)
        self._open[sequence] = delivery
        task = asyncio.create_task(self._see_through(delivery, message))
        self._tasks.add(task)
        task.add_done_callback(self._done)

    async def keep(self, client: Client, ack_wait: float) -> None:
        """Tell the broker all the time that they are in good hands, for one session."""
        while True:
            # A third: one message that is lost does no harm.
            await asyncio.sleep(ack_wait / 3)
            for delivery in list(self._open.values()):
                await client.publish(delivery.reply, _IN_PROGRESS)

    async def stop(self) -> None:
        """Leave what is not acknowledged to the broker."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _see_through(self, delivery: Delivery, message: Msg) -> None:
        try:
            word = await self._handler(delivery, message)
            await self._send(delivery.reply, word)
        except AgentError as error:
            # We are being stopped, or the journal cannot be written.
            log.warning("left with the broker, which gives it again", reason=str(error))
        finally:
            del self._open[delivery.sequence]
            self._ended.set()

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            # A bug. The broker gives the message again, and not for ever.
            log.error("a message could not be handled", exc_info=error)
