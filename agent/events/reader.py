"""Reading a stream from a place on, many messages for one request.

A pull consumer that the broker forgets by itself. Nothing is acknowledged: whoever reads keeps in
mind how far it got, and begins anew from there when a reader fails.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Final, Self

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext, api

from agent.errors import BrokerFailed
from agent.events.connection import FAILURES

# Seconds. So long after the last request the broker forgets a reader.
FORGOTTEN_AFTER: Final = 60.0
# Seconds that an answer may be late. Two cores under load have been seen to need 5.
ANSWER_SECONDS: Final = 10.0
# Of one answer, in memory here: messages of a megabyte each are possible.
MAX_BYTES: Final = 16 << 20

# What the broker ends an answer with when nothing more is there.
_NO_MESSAGES, _EXPIRED = "404", "408"
# And when the next message would be over MAX_BYTES; the number means other things too.
_TOO_MUCH: Final = "Message Size Exceeds MaxBytes"


class ReaderGone(BrokerFailed):
    """The broker has no such reader any more, or something was lost on the way from it."""


class Reader:
    """One place in a stream. After any error, or a fetch that was cancelled, it is to be closed.

    Attributes:
        created: when it was made, by the broker's clock.
        at_end: whether the last fetch has brought all that was there when it was asked for.
    """

    def __init__(self, client: Client, info: api.ConsumerInfo) -> None:
        self.created: datetime = info.created
        self.at_end = False
        self._client = client
        self._subject = f"$JS.API.CONSUMER.MSG.NEXT.{info.stream_name}.{info.name}"
        self._inbox = client.new_inbox()
        self._fetches = 0
        self._delivered = 0
        self._arrived: asyncio.Queue[Msg] = asyncio.Queue()

    @classmethod
    async def open(
        cls, client: Client, js: JetStreamContext, stream: str, place: api.ConsumerConfig
    ) -> Self:
        """A reader of a stream.

        Args:
            place: which messages, and from where on.
        """
        config = place.evolve(
            description="checkpoint-agent api",
            ack_policy=api.AckPolicy.NONE,
            inactive_threshold=FORGOTTEN_AFTER,
            # It holds nothing that is worth a copy or a file.
            num_replicas=1,
            mem_storage=True,
        )
        reader = cls(client, await js.add_consumer(stream, config))
        await reader._listen()
        return reader

    async def fetch(self, limit: int, wait_seconds: float) -> list[Msg]:
        """All messages that are there, at most ``limit``; waits until there is one, or so long.

        Raises:
            ReaderGone: open another one.
            BrokerFailed: the broker does not answer.
        """
        messages = await self._ask({"batch": limit, "max_bytes": MAX_BYTES}, wait_seconds)
        if not messages and not self.at_end:
            # The next one alone is larger than that, and has to be got past.
            messages = await self._ask({"batch": 1}, wait_seconds)
        return messages

    async def close(self) -> None:
        """Listen no more; the broker finds out."""
        with contextlib.suppress(*FAILURES):
            await self._subscription.unsubscribe()

    async def _listen(self) -> None:
        async def arrive(message: Msg) -> None:
            self._arrived.put_nowait(message)

        self._subscription = await self._client.subscribe(
            # An answer's end may come after we have all of it: each request has its own inbox.
            f"{self._inbox}.*",
            cb=arrive,
            # MAX_BYTES is the limit. nats-py would drop messages without a word.
            pending_bytes_limit=0,
        )

    async def _ask(self, request: Mapping[str, int], wait_seconds: float) -> list[Msg]:
        self._fetches += 1
        inbox = f"{self._inbox}.{self._fetches}"
        # With both, it stays with the broker until there is a message, and ends after the last one.
        full = {**request, "no_wait": True, "expires": int(wait_seconds * 10**9)}
        await self._client.publish(self._subject, json.dumps(full).encode(), inbox)
        try:
            async with asyncio.timeout(wait_seconds + ANSWER_SECONDS) as deadline:
                return await self._answer(inbox, request["batch"], deadline)
        except TimeoutError:
            raise BrokerFailed("the broker does not answer") from None

    async def _answer(self, inbox: str, limit: int, deadline: asyncio.Timeout) -> list[Msg]:
        messages: list[Msg] = []
        self.at_end = False
        while len(messages) < limit:
            message = await self._arrived.get()
            if message.reply:
                self._count(message)
                messages.append(message)
                deadline.reschedule(asyncio.get_running_loop().time() + ANSWER_SECONDS)
            elif message.subject == inbox:
                self.at_end = _is_at_end(message)
                break
        return messages

    def _count(self, message: Msg) -> None:
        """Notice a gap: a broker that has lost its memory of us begins anew from our first place.

        Raises:
            ReaderGone: there is one.
        """
        self._delivered += 1
        if message.metadata.sequence.consumer != self._delivered:
            raise ReaderGone("messages were lost on their way from the broker")


def _is_at_end(message: Msg) -> bool:
    """Whether an answer ends because there is nothing more; else it has got too big."""
    headers = message.headers or {}
    status, words = headers.get("Status", ""), headers.get("Description", "")
    if status in (_NO_MESSAGES, _EXPIRED):
        return True
    if words != _TOO_MUCH:
        raise ReaderGone(f"reading a stream: {status} {words}".strip())
    return False
