"""Phases, their rest, and progress that is told while an operation runs."""

from __future__ import annotations

import asyncio

import pytest

from agent.report import Phases, Update, ignore, watched


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.time = 100.0

    def __call__(self) -> float:
        return self.time


def test_phases_and_what_none_of_them_claims() -> None:
    clock = Clock()
    phases = Phases(now=clock)

    with phases.measure("prepare"):
        clock.time += 1.25
    clock.time += 0.5
    with phases.measure("dump"):
        clock.time += 2

    assert phases.wall() == 3.75
    assert phases.summary() == {"prepare": 1.25, "dump": 2.0, "unaccounted": 0.5}


def test_a_phase_that_comes_twice_adds_up() -> None:
    clock = Clock()
    phases = Phases(now=clock)

    for _ in range(3):
        with phases.measure("store"):
            clock.time += 1
    phases.add("store", 0.5)

    assert phases.seconds == {"store": 3.5}


def test_a_phase_that_fails_counts() -> None:
    clock = Clock()
    phases = Phases(now=clock)

    def fail() -> None:
        with phases.measure("dump"):
            clock.time += 1
            raise KeyError

    with pytest.raises(KeyError):
        fail()

    assert phases.summary() == {"dump": 1.0, "unaccounted": 0.0}


def test_more_than_there_was_leaves_no_rest() -> None:
    phases = Phases(now=Clock())
    phases.add("dump", 1)

    assert phases.summary() == {"dump": 1, "unaccounted": 0.0}


def test_figures_are_rounded_to_microseconds() -> None:
    clock = Clock()
    phases = Phases(now=clock)
    clock.time += 1 / 3

    assert phases.summary() == {"unaccounted": 0.333333}


async def test_progress_is_told_at_once_and_at_the_end() -> None:
    told: list[Update] = []
    heard = asyncio.Event()
    state = Update("dump", 1)

    def observe(update: Update) -> None:
        told.append(update)
        heard.set()

    async with watched(observe, lambda: state):
        await heard.wait()
        assert told == [Update("dump", 1)]
        state = Update("store", 2)

    assert told[-1] == Update("store", 2)
    length = len(told)
    await asyncio.sleep(0)
    assert len(told) == length


async def test_also_when_the_operation_fails() -> None:
    told: list[Update] = []

    with pytest.raises(KeyError):
        async with watched(told.append, lambda: Update("dump")):
            raise KeyError

    assert told == [Update("dump")]


def test_nobody_has_to_watch() -> None:
    assert ignore(Update("dump")) is None  # type: ignore[func-returns-value]
