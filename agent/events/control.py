"""The Actions API's side of the broker, in one object: what a node is for its own side, Events."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import nats.errors
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.errors import APIError, NoStreamResponseError, NotFoundError

from agent.errors import BrokerFailed
from agent.events import subjects
from agent.events.connection import FAILURES, Connection, until_one_ends, words
from agent.events.feed import Batch, Feed, Position
from agent.events.nodes import Nodes
from agent.events.streams import ensure_streams, subjects_of_all
from agent.events.watch import watch
from agent.logs import redacted
from agent.messages.model import ActionRequest, ActionType
from agent.messages.requests import message_of, to_json
from agent.pb.checkpoint_agent.v1 import actions_pb2 as pb
from agent.settings import Nats

# Seconds until a confirmation is given up.
CONFIRM_SECONDS: Final = 5.0

_KINDS: Final = {ActionType.CHECKPOINT: "checkpoint", ActionType.RESTORE: "restore"}

T = TypeVar("T")


@dataclass(slots=True)
class _Session:
    """``lacking`` is what ended it where that was not the connection."""

    js: JetStreamContext
    feed: Feed
    over: asyncio.Event = field(default_factory=asyncio.Event)
    lacking: str = ""


class Control:
    """Begins with `run`; ends when that is cancelled.

    Args:
        settings: name at least one server.
        name: what the broker's operators see who this is.

    Attributes:
        nodes: who is there, as far as the broker says.
    """

    def __init__(self, settings: Nats, name: str) -> None:
        self.nodes = Nodes()
        self._settings = settings
        self._connection = Connection(settings, name)
        self._session: _Session | None = None

    @property
    def ready(self) -> bool:
        """Whether there is a broker, all on it that is needed, and `nodes` knows all of them."""
        return self._connection.ready

    @property
    def problem(self) -> str:
        """Why it is not ready, without secrets; "" when it is."""
        return self._connection.problem

    async def run(self) -> None:
        """Hold one session after the other, for ever."""
        await self._connection.run(self._hold)

    async def hand_over(self, cluster: str, node: str, request: ActionRequest) -> None:
        """Give an action to a node; returns once the broker has stored it.

        The same action again, within the stream's duplicate window, is stored once.

        Raises:
            BrokerFailed: it is not confirmed within CONFIRM_SECONDS, or cannot be. It may be stored
                all the same: hand it over again.
        """
        message = message_of(request)
        await self._store(cluster, node, _KINDS[request.type], message, request.action_id)

    async def cancel(self, cluster: str, node: str, action_id: str, *, again: bool = False) -> None:
        """Ask a node to give an action up; returns once the broker has stored that.

        Args:
            again: also if one is stored: the action may have been published after it.

        Raises:
            BrokerFailed: as above.
        """
        message = pb.ActionRequest(action_id=action_id)
        message_id = f"{action_id}.cancel.again" if again else f"{action_id}.cancel"
        await self._store(cluster, node, subjects.CANCEL, message, message_id)

    async def read(self, position: Position, limit: int, wait_seconds: float) -> Batch:
        """What nodes have said after a position, at most ``limit`` messages, in their order.

        Returns as soon as there is one, or with none after ``wait_seconds``. What was said before
        the stream's first message is not missed: it is too old. Another stream than the position's
        is read from its beginning.

        Raises:
            BrokerFailed: it cannot be read now.
        """
        session = self._current()
        try:
            return await _while_open(session, session.feed.read(position, limit, wait_seconds))
        except FAILURES as error:
            raise self._failed(session, error, f"stream {subjects.ACTION_EVENTS}") from None

    async def _hold(self, client: Client) -> None:
        js = client.jetstream()
        await ensure_streams(js, self._settings.replicas, subjects_of_all())
        self._session = session = _Session(js, Feed(client, js))
        try:
            await until_one_ends(
                watch(client, js, self._settings, self.nodes, self._connection.set_up),
                session.over.wait(),
            )
            raise BrokerFailed(session.lacking)
        finally:
            self._session = None
            session.over.set()

    async def _store(
        self, cluster: str, node: str, kind: str, message: pb.ActionRequest, message_id: str
    ) -> None:
        found = subjects.node_of(f"{cluster}.{node}")
        if found is None:
            raise BrokerFailed(f"{cluster!r} and {node!r} cannot be parts of a subject")
        session = self._current()
        publishing = session.js.publish(
            subjects.action_subject(found, kind),
            to_json(message),
            CONFIRM_SECONDS,
            stream=subjects.ACTIONS,
            headers={"Nats-Msg-Id": message_id},
        )
        try:
            # Also where the broker does not even take what we send.
            async with asyncio.timeout(CONFIRM_SECONDS):
                await _while_open(session, publishing)
        except FAILURES as error:
            raise self._failed(
                session, error, f"stream {subjects.ACTIONS} for node {node}"
            ) from None

    def _current(self) -> _Session:
        if self._session is None:
            raise BrokerFailed(f"no broker: {self.problem or 'the connection was just lost'}")
        return self._session

    def _failed(self, session: _Session, error: BaseException, what: str) -> BrokerFailed:
        """What to tell whoever asked; ends a session whose streams are gone."""
        failed = BrokerFailed(f"{what}: {redacted(_reason(error))}")
        if isinstance(error, NoStreamResponseError | NotFoundError):
            # Only a session's beginning makes streams.
            session.lacking = str(failed)
            session.over.set()
        return failed


def _reason(error: BaseException) -> str:
    """What went wrong, in words that help."""
    if isinstance(error, NoStreamResponseError):
        return "it is gone, or does not take this any more"
    if isinstance(error, APIError):
        return f"the broker refuses: {error.description}"
    if isinstance(error, nats.errors.MaxPayloadError):
        return "it is larger than the broker's max_payload"
    if isinstance(error, TimeoutError):
        return f"the broker does not confirm within {CONFIRM_SECONDS:.0f} s"
    return words(error)


async def _while_open(session: _Session, work: Coroutine[Any, Any, T]) -> T:
    """What ``work`` comes to.

    Raises:
        BrokerFailed: the session ended before.
    """
    task = asyncio.ensure_future(work)
    await until_one_ends(task, session.over.wait())
    if task.cancelled():
        raise BrokerFailed("the connection was lost meanwhile")
    return task.result()
