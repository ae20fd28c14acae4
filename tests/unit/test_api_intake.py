"""Requests with a key whose first try ended with its API, on a real broker and real databases."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from agent.api import intake
from agent.api.database import Database
from agent.api.database import actions as table
from agent.api.database.connection import now
from agent.api.database.tables import UNHEARD, ActionRow, IdempotencyRow
from agent.api.database.tokens import Caller
from agent.api.errors import EventStreamFailed
from agent.api.intake import Key, Taken, give_up, take
from agent.api.metrics import ApiMetrics
from agent.api.parts import Parts
from agent.api.sweeper import NeverSent
from agent.events import Control
from agent.events import control as control_module
from agent.messages.model import ActionRequest, CheckpointSpec
from agent.settings import Nats, Settings
from agent.targets import PodRef
from tests.api_rows import row
from tests.controls import control_on
from tests.servers.jetstream import Stream
from tests.servers.nats import NatsServer
from tests.waiting import PATIENCE

KEY = Key(Caller("t", "tests", frozenset()), "key", "f")


class Desk:
    """One instance's; ``begun`` are the actions that it has prepared anew, and ``asked`` those that
    it has begun to publish.
    """

    def __init__(self, database: Database, control: Control, broker: NatsServer) -> None:
        settings = Settings(nats=Nats(url="nats://127.0.0.1:1"))
        self.parts = Parts(settings, database, control, ApiMetrics("test"))
        self.begun: list[str] = []
        self.asked: list[str] = []
        self._stream = Stream(broker, "ACTIONS")

    async def prepare(self) -> tuple[ActionRow, ActionRequest | None]:
        made = row(pod_uid="pod-1")
        self.begun.append(made.action_id)
        return made, self.again(made)

    def again(self, made: ActionRow) -> ActionRequest:
        self.asked.append(made.action_id)
        return ActionRequest(made.action_id, CheckpointSpec(PodRef(uid=made.pod_uid)))

    async def take(self) -> Taken:
        return await take(self.parts, KEY, self.prepare, self.again)

    async def left(self, seconds: float) -> ActionRow:
        """What an API has stored with the key so long ago, and died."""
        then = now() - int(seconds * 1e6)
        made = row(created=then, updated=then, pod_uid="pod-1")
        key = IdempotencyRow(
            token_id=KEY.caller.token_id,
            key=KEY.value,
            action_id=made.action_id,
            fingerprint=KEY.fingerprint,
            created=then,
        )
        async with self.parts.database.write() as session:
            session.add_all([made, key])
        return made

    async def give_up(self, made: ActionRow) -> bool:
        """As the sweeper does, which has looked at the row before."""
        database, control = self.parts.database, self.parts.control
        return await give_up(database, control, made, NeverSent(), seen=UNHEARD, unsent=True)

    async def now(self, action_id: str) -> ActionRow:
        async with self.parts.database.read() as session:
            found = await table.get(session, action_id)
        assert found is not None
        return found

    async def sent(self) -> list[tuple[str, str]]:
        """What was published for nodes: the last word of the subject, and the action."""
        messages = await asyncio.to_thread(self._stream.messages)
        return [(each.subject.rpartition(".")[2], each.body["actionId"]) for each in messages]


@pytest.fixture
async def desk(
    database: Database, broker: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Desk]:
    # A machine under load may need longer than a broker gets.
    monkeypatch.setattr(intake, "_CANCEL_SECONDS", PATIENCE)
    monkeypatch.setattr(control_module, "CONFIRM_SECONDS", PATIENCE)
    async with control_on(broker) as control:
        yield Desk(database, control, broker)


async def test_what_a_dead_api_has_stored_is_published_by_the_next_try(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "_PATIENCE", 3600.0)
    made = await desk.left(3601)
    # At once: whoever was at it has had all the time that it takes.
    async with asyncio.timeout(PATIENCE):
        assert await desk.take() == Taken(made.action_id, replayed=True)
    assert (await desk.now(made.action_id)).handed_over
    assert await desk.take() == Taken(made.action_id, replayed=True)
    assert await desk.sent() == [("checkpoint", made.action_id)]
    assert desk.begun == []
    # Whoever was answered with it may rely on it, also where a sweep has looked before.
    assert not await desk.give_up(made)
    assert (await desk.now(made.action_id)).state == "initialized"


async def test_what_it_had_published_is_not_stored_twice(desk: Desk) -> None:
    made = await desk.left(9)
    await desk.parts.control.hand_over(made.cluster, made.node, desk.again(made))
    assert await asyncio.gather(*(desk.take() for _ in range(5))) == [
        Taken(made.action_id, replayed=True)
    ] * 5  # fmt: skip
    assert await desk.sent() == [("checkpoint", made.action_id)]


async def test_whoever_is_at_it_is_waited_for(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "_PATIENCE", 3600.0)
    made = await desk.left(0)
    asking = asyncio.create_task(desk.take())
    await asyncio.sleep(0.5)
    assert await desk.sent() == []
    async with desk.parts.database.write() as session:
        assert await table.handed_over(session, made.action_id)
    assert await asking == Taken(made.action_id, replayed=True)
    assert await desk.sent() == []


async def test_what_was_given_up_is_asked_for_anew(desk: Desk) -> None:
    made = await desk.left(9)
    assert await desk.give_up(made)
    taken = await desk.take()
    assert [taken.action_id] == desk.begun
    assert not taken.replayed
    assert await desk.sent() == [("cancel", made.action_id), ("checkpoint", taken.action_id)]


async def test_what_is_given_up_while_it_is_published_is_cancelled_after_it(
    desk: Desk, broker: NatsServer
) -> None:
    made = await desk.left(9)
    # One that comes before what it is about does not keep it from being done.
    await desk.parts.control.cancel(made.cluster, made.node, made.action_id)
    broker.pause()
    try:
        asking = asyncio.create_task(desk.take())
        async with asyncio.timeout(PATIENCE):
            while not desk.asked:
                await asyncio.sleep(0.01)
        async with desk.parts.database.write() as session:
            assert await table.give_up(session, made.action_id, {"code": "never_sent"})
    finally:
        broker.resume()
    with pytest.raises(EventStreamFailed):
        await asking
    kinds = ("cancel", "checkpoint", "cancel")
    assert await desk.sent() == [(kind, made.action_id) for kind in kinds]
