"""Drains the journal's outbox to ACTION_EVENTS.

Nothing waits for it but acknowledgements: an action goes on whether or not there is a broker. Rows
are deleted once the broker has confirmed that it stored them; what it is sent twice it stores once,
by message id.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from itertools import groupby
from operator import attrgetter
from typing import Final

import nats.errors
from nats.js import JetStreamContext
from nats.js.errors import NoStreamResponseError

from agent.actions import Outbox, OutboxRow
from agent.events import subjects
from agent.events.connection import FAILURES
from agent.logs import get_logger
from agent.messages.requests import to_json
from agent.pb.checkpoint_agent.v1 import actions_pb2 as pb

log = get_logger(__name__)

# Rows read at a time: a few hundred kilobytes.
BATCH: Final = 256
# Actions whose events are under way at the same time. Those of one action go one after the other:
# were two under way and the first one lost, they would arrive the wrong way round.
IN_FLIGHT: Final = 64
# Seconds until a confirmation is given up, and until what failed is tried again.
CONFIRM_SECONDS: Final = 5.0
RETRY_SECONDS: Final = 0.5


class Publisher:
    """Publishes events, in order for each action."""

    def __init__(self, outbox: Outbox, cluster: str) -> None:
        self._outbox = outbox
        self._cluster = cluster
        self._js: JetStreamContext | None = None
        self._up = asyncio.Event()
        self._places = asyncio.Semaphore(IN_FLIGHT)

    async def run(self, js: JetStreamContext) -> None:
        """Publish what is in the outbox and what comes into it, for one session.

        Raises:
            nats.errors.Error: the connection is closed, or there is no ACTION_EVENTS.
        """
        self._js = js
        self._up.set()
        try:
            while True:
                self._outbox.changed.clear()
                if rows := await self._outbox.next(BATCH):
                    await self._publish(js, rows)
                else:
                    await self._outbox.changed.wait()
        finally:
            self._up.clear()
            self._js = None

    async def answer(self, event: pb.ActionEvent, message_id: str) -> None:
        """Publish an event that is in no outbox; returns once the broker has it."""
        payload = to_json(event)
        while True:
            await self._up.wait()
            with contextlib.suppress(*FAILURES):
                if self._js is not None:
                    await self._store(self._js, event.action_id, message_id, payload)
                    return
            await asyncio.sleep(RETRY_SECONDS)

    async def _publish(self, js: JetStreamContext, rows: Sequence[OutboxRow]) -> None:
        by_action = groupby(sorted(rows, key=attrgetter("action_id")), key=attrgetter("action_id"))
        done: list[int] = []
        problems = await asyncio.gather(
            *(self._publish_in_order(js, list(of_one), done) for _, of_one in by_action)
        )
        await self._outbox.confirm(done)
        failed = [problem for problem in problems if problem is not None]
        for problem in failed:
            # Only a session's beginning makes connections and streams.
            if isinstance(problem, NoStreamResponseError | nats.errors.ConnectionClosedError):
                raise problem
        if failed:
            log.warning("events are not confirmed; trying again", reason=str(failed[0]))
            await asyncio.sleep(RETRY_SECONDS)

    async def _publish_in_order(
        self, js: JetStreamContext, rows: Sequence[OutboxRow], done: list[int]
    ) -> Exception | None:
        """Publish one action's rows, oldest first, until one fails; returns why."""
        async with self._places:
            for row in sorted(rows, key=attrgetter("id")):
                try:
                    await self._store(js, row.action_id, row.message_id, row.payload)
                except nats.errors.MaxPayloadError:
                    # It would keep everything after it from ever being published.
                    log.error("event dropped: too big for the broker", message_id=row.message_id)
                except FAILURES as error:
                    return error
                done.append(row.id)
        return None

    async def _store(
        self, js: JetStreamContext, action_id: str, message_id: str, payload: bytes
    ) -> None:
        subject = subjects.event_subject(self._cluster, action_id)
        await js.publish(subject, payload, CONFIRM_SECONDS, headers={"Nats-Msg-Id": message_id})
