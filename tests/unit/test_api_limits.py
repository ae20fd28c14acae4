"""How often and how much, with a clock of the test's own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from starlette.types import Message

from agent.api.errors import TooBig, TooFast, TooSlow
from agent.api.limits import Rates, limited


class Clock:
    """Goes on when it is told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def asked(rates: Rates, caller: str, times: int) -> int:
    """How many of so many requests are let through."""
    through = 0
    for _ in range(times):
        try:
            rates.ask(caller)
        except TooFast:
            continue
        through += 1
    return through


def test_a_burst_and_then_so_many_a_second(clock: Clock) -> None:
    rates = Rates(10.0, 20.0, clock)
    assert asked(rates, "a", 100) == 20
    clock.now += 0.5
    assert asked(rates, "a", 100) == 5
    clock.now += 1.0
    assert asked(rates, "a", 100) == 10
    # However long nobody asks, no more than a burst is saved.
    clock.now += 3600
    assert asked(rates, "a", 100) == 20


def test_callers_do_not_disturb_each_other(clock: Clock) -> None:
    rates = Rates(1.0, 2.0, clock)
    assert asked(rates, "a", 10) == 2
    assert asked(rates, "b", 10) == 2


def test_it_says_how_long_to_wait(clock: Clock) -> None:
    rates = Rates(0.5, 1.0, clock)
    rates.ask("a")
    with pytest.raises(TooFast) as refused:
        rates.ask("a")
    assert refused.value.seconds == pytest.approx(2.0)
    clock.now += refused.value.seconds
    rates.ask("a")


def test_asking_in_vain_makes_it_no_longer(clock: Clock) -> None:
    rates = Rates(1.0, 1.0, clock)
    rates.ask("a")
    assert asked(rates, "a", 1000) == 0
    clock.now += 1.0
    rates.ask("a")


def test_less_than_one_at_once_would_be_none(clock: Clock) -> None:
    rates = Rates(0.1, 0.2, clock)
    assert asked(rates, "a", 5) == 1


def test_strangers_take_no_memory_for_ever(clock: Clock) -> None:
    rates = Rates(1.0, 1.0, clock)
    rates.ask("regular")
    for number in range(9_999):
        rates.ask(f"stranger-{number}")
    assert asked(rates, "regular", 1) == 0
    # Who asked longest ago is forgotten, and may begin anew.
    rates.ask("one-too-many")
    assert asked(rates, "regular", 1) == 1


def body(*pieces: bytes) -> Iterator[Message]:
    for number, piece in enumerate(pieces):
        more = number < len(pieces) - 1
        yield {"type": "http.request", "body": piece, "more_body": more}
    yield {"type": "http.disconnect"}


async def read(limit: int, *pieces: bytes) -> list[Message]:
    messages = body(*pieces)

    async def receive() -> Message:
        return next(messages)

    receiving = limited(receive, limit)
    return [await receiving() for _ in range(len(pieces) + 1)]


async def test_a_body_that_fits_comes_as_it_is() -> None:
    assert await read(10, b"12345", b"", b"67890") == list(body(b"12345", b"", b"67890"))
    assert await read(0, b"") == list(body(b""))


@pytest.mark.parametrize("pieces", [(b"x" * 11,), (b"12345", b"67890", b"1"), (b"1",) * 11])
async def test_a_body_that_does_not_is_stopped(pieces: tuple[bytes, ...]) -> None:
    with pytest.raises(TooBig) as refused:
        await read(10, *pieces)
    assert refused.value.limit == 10
    assert refused.value.status == 413


async def test_a_body_that_does_not_come_to_its_end_is_not_waited_for() -> None:
    messages = iter([*list(body(b"1", b"2"))[:1]])

    async def receive() -> Message:
        for message in messages:
            return message
        await asyncio.Event().wait()
        raise AssertionError

    receiving = limited(receive, 10, 0.1)
    assert (await receiving())["body"] == b"1"
    with pytest.raises(TooSlow, match="not complete after 0 s"):
        await receiving()


async def test_a_client_that_goes_away_later_is_waited_for(clock: Clock) -> None:
    """As long as a stream of events takes."""
    messages = body(b"1", b"2")

    async def receive() -> Message:
        message = next(messages)
        if message["type"] == "http.disconnect":
            await asyncio.sleep(0.3)
        return message

    receiving = limited(receive, 10, 0.1)
    assert [(await receiving())["type"] for _ in range(3)] == [
        "http.request", "http.request", "http.disconnect",
    ]  # fmt: skip
