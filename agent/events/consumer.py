"""Takes actions from the broker, hands them to the executor, and acknowledges them at their end.

A message is acknowledged once its action is terminal and the broker has confirmed every event of
it. Until then it is the broker's, who gives it again to an agent that died; the journal knows then
what has become of it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext, api

from agent.actions import Executor
from agent.errors import (
    ActionNotFound,
    AgentError,
    AlreadyExists,
    Cancelled,
    QueueFull,
    RedeliveredTooOften,
    StoreFailed,
)
from agent.events import subjects
from agent.events.connection import FAILURES, Connection, until_one_ends
from agent.events.deliveries import ACK, TERMINATE, Deliveries, Delivery
from agent.events.incoming import Refused, read_cancel, read_request
from agent.events.publisher import Publisher
from agent.events.pull import Pull
from agent.events.streams import Consumers
from agent.logs import about, get_logger
from agent.messages.events import event_message
from agent.messages.model import Action, ActionRequest, ActionType
from agent.settings import Node

log = get_logger(__name__)

T = TypeVar("T")

# Messages asked for at a time.
BATCH: Final = 256
# Cancels at a time. Each waits until its action is put back as it was.
CANCELS: Final = 64
# Seconds between two attempts to hand something to an executor that cannot take it now.
RETRY_SECONDS: Final = 1.0
# Looks at an empty backlog, that long apart, until an action that is to be cancelled counts as
# unknown: it may be on its way from the broker during the first one.
LOOKS: Final = 2


class Consumer:
    """One node's.

    Args:
        queue_limit: messages to hold at most; the others stay in the stream.
    """

    def __init__(
        self,
        connection: Connection,
        publisher: Publisher,
        executor: Executor,
        node: Node,
        queue_limit: int,
    ) -> None:
        self._publisher = publisher
        self._executor = executor
        self._node = node
        self._work = Deliveries(queue_limit, self._act, connection.send)
        self._cancels = Deliveries(CANCELS, self._cancel, connection.send)
        self._paused = asyncio.Event()
        self._max_deliver = 0
        self._js: JetStreamContext | None = None
        # To be cancelled as soon as they come.
        self._unwanted: set[str] = set()
        # With us, and neither in the journal nor refused yet: for hours where a disk is full.
        self._coming: set[str] = set()

    async def run(self, client: Client, js: JetStreamContext, consumers: Consumers) -> None:
        """Take messages for one session.

        Raises:
            BrokerFailed: a consumer is gone, or the broker says nothing.
        """
        self._js = js
        self._max_deliver = consumers.work.max_deliver or 0
        try:
            await until_one_ends(
                self._take(Pull(client, subjects.consumer_name(self._node)), self._work),
                self._take(
                    Pull(client, subjects.consumer_name(self._node, cancels=True)), self._cancels
                ),
                self._work.keep(client, _ack_wait(consumers.work)),
                self._cancels.keep(client, _ack_wait(consumers.cancels)),
            )
        finally:
            self._js = None

    @property
    def acknowledging(self) -> int:
        """How many messages wait for nothing but their acknowledgement."""
        return self._work.answered

    def pause(self) -> None:
        """Take nothing new from now on; what was taken is seen through."""
        self._paused.set()

    async def stop(self) -> None:
        """Leave everything that is not acknowledged to the broker."""
        self.pause()
        await self._work.stop()
        await self._cancels.stop()

    async def _take(self, pull: Pull, deliveries: Deliveries) -> None:
        async def taking() -> None:
            while True:
                room = min(await deliveries.room(), BATCH)
                async with contextlib.aclosing(pull.messages(room)) as messages:
                    async for message in messages:
                        deliveries.take(message)

        await until_one_ends(taking(), self._paused.wait())
        # Acknowledgements go on until the session ends.
        await asyncio.Event().wait()

    async def _act(self, delivery: Delivery, message: Msg) -> bytes:
        try:
            request = read_request(message.data, subjects.kind_of(message.subject))
        except Refused as refused:
            return await self._refuse_message(refused)
        # The bytes are not needed any more, and there may be a thousand of them.
        message.data = b""
        with about(action_id=request.action_id):
            return await self._answer(delivery, request)

    async def _answer(self, delivery: Delivery, request: ActionRequest) -> bytes:
        action_id = request.action_id
        self._coming.add(action_id)
        try:
            known = await self._submit(delivery, request)
        except AlreadyExists as error:
            # Events under this id are the other action's.
            log.warning("not done: another action has this id", reason=str(error))
            return TERMINATE
        except (Cancelled, RedeliveredTooOften) as error:
            return await self._refuse(request, error)
        finally:
            self._coming.discard(action_id)
        action = await _patiently(lambda: self._executor.wait(action_id))
        delivery.answered = True
        await _patiently(lambda: self._executor.outbox.published(action_id))
        if known is not None and known.state.is_terminal:
            await self._answer_again(delivery, action)
        return ACK

    async def _answer_again(self, delivery: Delivery, action: Action) -> None:
        """Publish the last event of an action that had ended before this message came."""
        event = event_message(action.event, cluster=self._node.cluster, node=self._node.name)
        message_id = f"{action.action_id}.{event.sequence}"
        if delivery.count == 1:
            # Somebody has asked anew, and waits for an answer that is not dropped as a duplicate.
            message_id = f"{message_id}.again.{delivery.sequence}"
        log.info("answered again, not done again", state=action.state.value)
        await self._publisher.answer(event, message_id)

    async def _submit(self, delivery: Delivery, request: ActionRequest) -> Action | None:
        """Hand a request over, as soon as that is possible; what was known of it before.

        Raises:
            AlreadyExists
            Cancelled, RedeliveredTooOften: it is not to be begun.
            ShuttingDown
        """
        known = await _patiently(lambda: self._known(request.action_id))
        if known is None and 1 < delivery.count >= self._max_deliver > 0:
            raise RedeliveredTooOften(delivery.count)
        while True:
            if known is None and request.action_id in self._unwanted:
                raise Cancelled
            try:
                await self._executor.submit(request)
            except (QueueFull, StoreFailed) as error:
                await _later(error)
            else:
                return known

    async def _cancel(self, _delivery: Delivery, message: Msg) -> bytes:
        try:
            action_id = read_cancel(message.data)
        except Refused as refused:
            return await self._refuse_message(refused)
        with about(action_id=action_id):
            if not await self._cancelled(action_id):
                await self._cancel_in_advance(action_id)
            return ACK

    async def _cancelled(self, action_id: str) -> bool:
        """Whether there is such an action; it is put back then."""
        try:
            await _patiently(lambda: self._executor.cancel(action_id))
        except ActionNotFound:
            return False
        return True

    async def _cancel_in_advance(self, action_id: str) -> None:
        """Cancel an action that may still be in the stream, or waits here for room."""
        self._unwanted.add(action_id)
        looks = 0
        while looks < LOOKS and action_id in self._unwanted:
            await asyncio.sleep(RETRY_SECONDS)
            if await self._cancelled(action_id):
                break
            may_come = action_id in self._coming or not await self._nothing_waits()
            looks = 0 if may_come else looks + 1
        else:
            if action_id in self._unwanted:
                log.warning("cannot be cancelled: no such action on this node")
        self._unwanted.discard(action_id)

    async def _nothing_waits(self) -> bool:
        """Whether the broker has no action for this node that it has not given us."""
        if self._js is None:
            return False
        try:
            info = await self._js.consumer_info(
                subjects.ACTIONS, subjects.consumer_name(self._node)
            )
        except FAILURES:
            return False
        return not info.num_pending and (info.num_ack_pending or 0) <= len(self._work)

    async def _refuse_message(self, refused: Refused) -> bytes:
        """Answer a message that is no request, where it says to whom."""
        with about(action_id=refused.action_id or ""):
            log.warning("message refused", reason=str(refused.error))
            if refused.action_id is not None:
                await self._tell(refused.action_id, refused.type, refused.error)
        return TERMINATE

    async def _refuse(self, request: ActionRequest, error: AgentError) -> bytes:
        log.warning("action refused", reason=str(error))
        await self._tell(request.action_id, request.type, error)
        # Not before: who cancelled it is told that it does not begin, also if we die now.
        self._unwanted.discard(request.action_id)
        return TERMINATE

    async def _tell(self, action_id: str, kind: ActionType, error: AgentError) -> None:
        """Answer with an error, and return when the broker has that."""
        await _patiently(lambda: self._executor.refuse(action_id, kind, error))
        await _patiently(lambda: self._executor.outbox.published(action_id))

    async def _known(self, action_id: str) -> Action | None:
        try:
            return await self._executor.get(action_id)
        except ActionNotFound:
            return None


async def _patiently(work: Callable[[], Awaitable[T]]) -> T:
    """What ``work`` comes to, as soon as the journal can be used.

    Left to the broker, a message would be given up after some tries, and never be answered.
    """
    while True:
        try:
            return await work()
        except StoreFailed as error:
            await _later(error)


async def _later(error: AgentError) -> None:
    log.warning("cannot be taken now; trying again", reason=str(error))
    await asyncio.sleep(RETRY_SECONDS)


def _ack_wait(consumer: api.ConsumerConfig) -> float:
    """Seconds; the broker's own default where it names none."""
    return consumer.ack_wait or 30.0
