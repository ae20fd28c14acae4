"""Pulling messages from a durable consumer: only as many as there is room for."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from typing import Final

from nats.aio.client import Client
from nats.aio.msg import Msg

from agent.errors import BrokerFailed
from agent.events import subjects

# Seconds. How long one request stays with the broker, and how often the broker says meanwhile that
# it has not forgotten it: the silence after two of them ends the session.
EXPIRES: Final = 30
HEARTBEAT: Final = 5

# What the broker answers beside messages.
_HEARTBEAT, _NO_MESSAGES, _EXPIRED = "100", "404", "408"


class Pull:
    """Requests for messages over one subscription."""

    def __init__(self, client: Client, consumer: str) -> None:
        self._client = client
        self._subject = f"$JS.API.CONSUMER.MSG.NEXT.{subjects.ACTIONS}.{consumer}"
        self._inbox = client.new_inbox()

    async def messages(self, room: int) -> AsyncGenerator[Msg, None]:
        """Up to ``room`` messages as they come; fewer when there were none for a while.

        Raises:
            BrokerFailed: the consumer is gone, or the broker says nothing.
        """
        subscription = await self._client.subscribe(self._inbox)
        try:
            request = {
                "batch": room,
                "expires": EXPIRES * 10**9,
                "idle_heartbeat": HEARTBEAT * 10**9,
            }
            await self._client.publish(self._subject, json.dumps(request).encode(), self._inbox)
            while room:
                try:
                    message = await subscription.next_msg(3 * HEARTBEAT)
                except TimeoutError:
                    raise BrokerFailed("the broker has forgotten our request") from None
                if message.reply:
                    room -= 1
                    yield message
                elif _is_over(message):
                    return
        finally:
            await subscription.unsubscribe()


def _is_over(message: Msg) -> bool:
    """Whether a request has ended. Only the broker sends messages that want no answer."""
    headers = message.headers or {}
    status = headers.get("Status", "")
    if status in (_NO_MESSAGES, _EXPIRED):
        return True
    if status != _HEARTBEAT:
        raise BrokerFailed(f"pulling actions: {status} {headers.get('Description', '')}".strip())
    return False
