"""What the API has given up stays so: nobody who comes later is told that it is under way."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent.api.database import Database, actions, open_database, projection
from agent.api.database.connection import now
from agent.api.database.tables import ActionRow, TransitionRow
from agent.events import Position, StoredEvent
from agent.messages.model import ActionType, Event, State
from agent.settings import Api

FAILURE = {"code": "event_stream_failed", "message": "the broker does not confirm"}
HOLDER = "one"


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    """One with its tables, whose events are this test's to take over."""
    made = open_database(Api(database=f"sqlite:///{tmp_path}/api.db"))
    await made.migrate()
    await projection.claim(made, HOLDER)
    yield made
    await made.close()


async def taken(database: Database) -> str:
    """An action that is stored and not yet confirmed by the broker."""
    action_id, time = str(uuid.uuid4()), now()
    async with database.write() as session:
        session.add(
            ActionRow(
                action_id=action_id,
                type=ActionType.CHECKPOINT.value,
                state=State.INITIALIZED.value,
                cluster="test",
                node="node-a",
                created=time,
                updated=time,
            )
        )
    return action_id


async def tell(database: Database, action_id: str, *states: State) -> None:
    """Its node says so."""
    events = []
    for number, state in enumerate(states, 1):
        event = Event(action_id, number, state, ActionType.CHECKPOINT, datetime.now(UTC))
        events.append(StoredEvent(number, event, "test", "node-a", b""))
    after = Position("stream", len(events))
    assert await projection.apply(
        database, HOLDER, Position("", 0), after, events, lambda _cluster, _pod: {}
    )


async def give_up(database: Database, action_id: str) -> None:
    """As when the broker has not confirmed it."""
    async with database.write() as session:
        assert await actions.give_up(session, action_id, FAILURE)


async def row_of(database: Database, action_id: str) -> tuple[ActionRow, list[TransitionRow]]:
    """What is known of it."""
    async with database.read() as session:
        row = await actions.get(session, action_id)
        assert row is not None
        return row, list(await actions.transitions(session, action_id))


async def test_its_node_may_do_it_all_the_same_and_it_stays_given_up(database: Database) -> None:
    action_id = await taken(database)
    await give_up(database, action_id)
    await tell(database, action_id, State.INITIALIZED, State.PROCESSING, State.READY)
    row, steps = await row_of(database, action_id)
    # A second request with its key looks at the last two, and begins another action.
    assert (row.state, row.failure, row.handed_over) == ("error", FAILURE, False)
    # Of what came late, only how it ended.
    assert {step.state for step in steps} == {"error", "ready"}


async def test_a_confirmation_that_comes_later_is_none(database: Database) -> None:
    action_id = await taken(database)
    await give_up(database, action_id)
    async with database.write() as session:
        assert not await actions.handed_over(session, action_id)
    row, _ = await row_of(database, action_id)
    assert not row.handed_over


async def test_a_node_is_faster_than_the_confirmation(database: Database) -> None:
    action_id = await taken(database)
    await tell(database, action_id, State.INITIALIZED, State.ERROR)
    async with database.write() as session:
        assert await actions.handed_over(session, action_id)
    row, _ = await row_of(database, action_id)
    assert (row.state, row.handed_over) == ("error", True)
