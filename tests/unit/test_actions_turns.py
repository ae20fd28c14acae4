"""Whose turn it is: limits, order, and who may overtake whom."""

from __future__ import annotations

import asyncio

import pytest

from agent.actions.turns import ASIDE_PER_SLOT, Turn, Turns


class Worker:
    """Takes a turn, and keeps it until told to go."""

    def __init__(self, turns: Turns, *keys: str, slot: bool = True, urgent: bool = False) -> None:
        self.turn: Turn | None = None
        self._done = asyncio.Event()
        self._task = asyncio.create_task(self._work(turns, frozenset(keys), slot, urgent))

    async def _work(self, turns: Turns, keys: frozenset[str], slot: bool, urgent: bool) -> None:
        async with turns.turn(keys, slot=slot, urgent=urgent) as self.turn:
            await self._done.wait()

    @property
    def works(self) -> bool:
        return self.turn is not None and not self._task.done()

    async def end(self) -> None:
        self._done.set()
        await self._task

    async def give_up(self) -> None:
        self._task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await self._task


async def settle() -> None:
    """Everybody who can go on has done so."""
    for _ in range(5):
        await asyncio.sleep(0)


async def working(*workers: Worker) -> list[bool]:
    await settle()
    return [worker.works for worker in workers]


async def test_so_many_at_a_time_in_order() -> None:
    turns = Turns(2)
    a, b, c, d = (Worker(turns, key) for key in "abcd")
    assert await working(a, b, c, d) == [True, True, False, False]
    await b.end()
    assert await working(a, c, d) == [True, True, False]
    await a.end()
    assert await working(c, d) == [True, True]


async def test_who_waits_for_a_target_is_overtaken() -> None:
    turns = Turns(2)
    first, second, other = Worker(turns, "x"), Worker(turns, "x"), Worker(turns, "y")
    assert await working(first, second, other) == [True, False, True]
    await first.end()
    assert await working(second) == [True]


async def test_but_not_by_later_ones_for_the_same_target() -> None:
    turns = Turns(3)
    holds = Worker(turns, "x")
    waits, later = Worker(turns, "x", "y"), Worker(turns, "y")
    assert await working(holds, waits, later) == [True, False, False]
    await holds.end()
    assert await working(waits, later) == [True, False]
    await waits.end()
    assert await working(later) == [True]


async def test_a_slot_that_was_given_back_does_not_free_the_target() -> None:
    turns = Turns(1)
    first, same, other = Worker(turns, "x"), Worker(turns, "x"), Worker(turns, "y")
    await settle()
    assert first.turn is not None
    first.turn.give_slot_back()
    first.turn.give_slot_back()
    assert await working(first, same, other) == [True, False, True]
    await other.end()
    assert await working(same) == [False]
    await first.end()
    assert await working(same) == [True]
    third = Worker(turns, "z")
    assert await working(third) == [False]


async def test_so_many_go_on_without_their_slot() -> None:
    """Each keeps its memory until it ends, and who comes after them waits for one to end."""
    turns = Turns(1)
    aside = []
    for number in range(ASIDE_PER_SLOT):
        aside.append(Worker(turns, f"aside-{number}"))
        assert await working(*aside) == [True] * (number + 1)
        give_back(aside[-1])
    last, later = Worker(turns, "last"), Worker(turns, "later")
    assert await working(last, later) == [True, False]
    give_back(last)
    give_back(last)
    assert await working(last, later) == [True, False]
    assert not has_room(turns)

    await aside[0].end()
    # Its room is the last one's, whose slot is the later one's.
    assert await working(last, later) == [True, True]
    assert not has_room(turns)
    give_back(later)
    assert not has_room(turns)
    await later.end()
    assert has_room(turns)
    for each in (*aside[1:], last):
        await each.end()
    again = [Worker(turns, key) for key in "ab"]
    assert await working(*again) == [True, False]


def has_room(turns: Turns) -> bool:
    return turns.has_room


def give_back(worker: Worker) -> None:
    assert worker.turn is not None
    worker.turn.give_slot_back()


async def test_who_gives_up_waiting_is_out_of_the_way() -> None:
    turns = Turns(1)
    a, b, c = (Worker(turns, key) for key in "abc")
    await settle()
    await b.give_up()
    await a.end()
    assert await working(c) == [True]


async def test_who_gives_up_working_leaves_its_place() -> None:
    turns = Turns(1)
    a, b = Worker(turns, "x"), Worker(turns, "x")
    await settle()
    await a.give_up()
    assert await working(b) == [True]


async def test_who_is_called_up_and_cancelled_at_once_takes_no_place() -> None:
    turns = Turns(1)
    a, b, c = Worker(turns, "x"), Worker(turns, "x"), Worker(turns, "x")
    await settle()
    # Ends within this turn of the loop, and so calls b up before b hears of its own end.
    await a.end()
    await b.give_up()
    assert await working(c) == [True]


async def test_who_only_watches_needs_no_slot_but_the_target() -> None:
    turns = Turns(1)
    a = Worker(turns, "x")
    watcher, other = Worker(turns, "y", slot=False), Worker(turns, "x", slot=False)
    b, c = Worker(turns, "y"), Worker(turns, "z")
    assert await working(a, watcher, other, b, c) == [True, True, False, False, False]
    await watcher.end()
    assert await working(a, other, b, c) == [True, False, False, False]
    await a.end()
    assert await working(other, b, c) == [True, True, False]
    await b.end()
    assert await working(other, c) == [True, True]


async def test_a_watcher_that_is_called_up_and_cancelled_gives_no_slot_back() -> None:
    turns = Turns(1)
    a, watcher = Worker(turns, "x", slot=False), Worker(turns, "x", slot=False)
    await settle()
    await a.end()
    await watcher.give_up()
    b, c = Worker(turns, "y"), Worker(turns, "z")
    assert await working(b, c) == [True, False]


async def test_what_is_urgent_begins_before_all_that_wait_but_not_before_other_urgent_ones() -> (
    None
):
    turns = Turns(1)
    a, b, c = (Worker(turns, key) for key in "abc")
    await settle()
    first, second = (Worker(turns, key, urgent=True) for key in "bd")
    for begins, waiting in ((first, (b, c, second)), (second, (b, c)), (b, (c,)), (c, ())):
        ends = next(each for each in (a, first, second, b) if each.works)
        await ends.end()
        assert await working(begins, *waiting) == [True] + [False] * len(waiting)
