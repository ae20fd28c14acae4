"""Instances take turns: one reads, and one that was thought dead and is not finds it too late."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import select, update

from agent.api.database import Database, projection
from agent.api.database.connection import now
from agent.api.database.tables import ActionRow, ProjectionRow
from agent.events import Position
from agent.messages.model import State
from agent.targets import PodRef
from tests.api_rows import said

ID = "11111111-2222-4333-8444-555555555555"
START, NEXT, LAST = Position("", 0), Position("s", 7), Position("s", 9)


async def apply(database: Database, holder: str, before: Position, after: Position) -> bool:
    """Take over one event, the number of which is the position's."""
    event = said(ID, after.sequence, State.PROCESSING)
    return await projection.apply(database, holder, before, after, [event], lambda *_: {})


async def sequence(database: Database) -> int | None:
    async with database.read() as session:
        return (await session.scalars(select(ActionRow.sequence))).first()


async def expire(database: Database) -> None:
    async with database.write() as session:
        await session.execute(update(ProjectionRow).values(held_until=0))


async def test_one_reads_and_the_others_stand_by(database: Database) -> None:
    assert await projection.claim(database, "one") == START
    assert await projection.claim(database, "other") is None
    # Again and again: it is how the one who reads keeps its turn.
    assert await projection.claim(database, "one") == START
    assert await apply(database, "one", START, NEXT)
    assert await projection.claim(database, "other") is None
    assert await projection.claim(database, "one") == NEXT


async def test_all_know_until_when_everything_is_taken_over(database: Database) -> None:
    async def known() -> int:
        async with database.read() as session:
            return await projection.caught_up(session)

    assert await known() == 0
    assert await projection.claim(database, "one") == START
    assert await projection.apply(database, "one", START, START, [], lambda *_: {}, 5)
    assert await known() == 5
    # There is more.
    assert await apply(database, "one", START, NEXT)
    assert await known() == 5
    await expire(database)
    assert await projection.claim(database, "other") == NEXT
    assert not await projection.apply(database, "one", NEXT, NEXT, [], lambda *_: {}, 9)
    assert await known() == 5


async def test_whose_time_is_up_may_have_died(database: Database) -> None:
    before = now()
    assert await projection.claim(database, "one") == START
    async with database.read() as session:
        row = await session.get(ProjectionRow, 1)
    assert row is not None
    # Ten seconds: events are shown so much later after a machine has died.
    assert before + 10_000_000 <= row.held_until <= now() + 10_000_000
    await expire(database)
    assert await projection.claim(database, "other") == START
    assert await projection.claim(database, "one") is None


async def test_a_clock_that_was_wrong_keeps_nobody_waiting(database: Database) -> None:
    assert await projection.claim(database, "one") == START
    for ahead, turn in ((5, None), (3600, START)):
        async with database.write() as session:
            until = now() + projection.LEASE + ahead * 1_000_000
            await session.execute(update(ProjectionRow).values(held_until=until))
        assert await projection.claim(database, "other") == turn
    assert not await apply(database, "one", START, NEXT)
    assert await projection.claim(database, "one") is None


async def test_who_ends_in_order_lets_the_next_one_go_on_at_once(database: Database) -> None:
    assert await projection.claim(database, "one") == START
    assert await apply(database, "one", START, NEXT)
    # It is not theirs to give.
    await projection.release(database, "other")
    assert await projection.claim(database, "other") is None
    await projection.release(database, "one")
    assert await projection.claim(database, "other") == NEXT
    assert await projection.claim(database, "one") is None


async def test_who_was_thought_dead_finds_that_others_have_gone_on(database: Database) -> None:
    assert await projection.claim(database, "one") == START
    await expire(database)
    assert await projection.claim(database, "other") == START
    assert not await apply(database, "one", START, NEXT)
    assert await sequence(database) is None
    assert await apply(database, "other", START, NEXT)
    # Even when it has its turn again: it has not read what the other one has.
    await projection.release(database, "other")
    assert await projection.claim(database, "one") == NEXT
    assert not await apply(database, "one", START, LAST)
    assert await sequence(database) == 7
    assert await apply(database, "one", NEXT, LAST)
    assert await sequence(database) == 9


async def test_without_a_turn_nothing_is_taken_over(database: Database) -> None:
    assert not await apply(database, "one", START, NEXT)
    assert await sequence(database) is None


async def test_position_and_events_are_one(database: Database) -> None:
    """What fails is taken over as a whole the next time."""
    assert await projection.claim(database, "one") == START

    def names(*_: object) -> dict[str, str]:
        raise RuntimeError("in the middle")

    events = [
        said(ID, 1, State.PROCESSING),
        said(ID, 2, State.READY, pod=PodRef("u", "n", "p")),
    ]
    with pytest.raises(RuntimeError, match="in the middle"):
        await projection.apply(database, "one", START, NEXT, events, names)
    assert await projection.claim(database, "one") == START
    assert await sequence(database) is None


async def test_all_that_begin_at_once(database: Database) -> None:
    claims = await asyncio.gather(*(projection.claim(database, f"i{n}") for n in range(8)))
    assert sorted(claims, key=str) == [None] * 7 + [START]
