"""The thread that works in the book: together, in order, and nobody is told too early."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from agent.actions.book import Book
from agent.actions.bookkeeper import Bookkeeper
from agent.errors import ActionNotFound, StoreFailed
from agent.messages.model import State
from tests.unit.test_actions_book import accepted, event, request
from tests.waiting import PATIENCE


class CountingBook(Book):
    """Notes how each transaction is made durable."""

    transactions: list[bool]

    @contextmanager
    def transaction(self, *, durable: bool) -> Iterator[None]:
        self.transactions.append(durable)
        with super().transaction(durable=durable):
            yield


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "actions.db"


@pytest.fixture
def transactions() -> list[bool]:
    return []


@pytest.fixture
async def bookkeeper(path: Path, transactions: list[bool]) -> AsyncIterator[Bookkeeper]:
    def open_book() -> Book:
        book = CountingBook(path, cluster="c", node="n")
        book.transactions = transactions
        return book

    made = Bookkeeper(open_book)
    await made.start()
    yield made
    await made.close()


def accept(book: Book, action_id: str) -> int:
    return book.accept(request(action_id), event(State.INITIALIZED, action_id))[0].event.sequence


async def test_what_comes_together_is_written_together(
    bookkeeper: Bookkeeper, transactions: list[bool]
) -> None:
    gate = threading.Event()
    first = asyncio.create_task(bookkeeper.do(lambda _book: gate.wait(20)))
    async with asyncio.timeout(PATIENCE):
        while not transactions:
            await asyncio.sleep(0.001)
    others = [
        asyncio.create_task(bookkeeper.do(partial(accept, action_id=str(number))))
        for number in range(100)
    ]
    await asyncio.sleep(0)
    gate.set()
    await asyncio.gather(first, *others)
    assert transactions == [True, True]
    assert len(await bookkeeper.look(lambda book: book.actions(limit=200))) == 100


async def test_only_what_has_to_be_durable_is(
    bookkeeper: Bookkeeper, transactions: list[bool]
) -> None:
    await bookkeeper.do(lambda book: accept(book, "a"))
    await bookkeeper.look(lambda book: book.outbox_depth())
    assert transactions == [True, False]


async def test_one_that_fails_does_not_undo_its_neighbours(bookkeeper: Bookkeeper) -> None:
    results = await asyncio.gather(
        bookkeeper.do(lambda book: accept(book, "a")),
        bookkeeper.do(lambda book: book.get("nobody")),
        bookkeeper.do(lambda book: accept(book, "b")),
        return_exceptions=True,
    )
    assert [type(each) for each in results] == [int, ActionNotFound, int]
    found = await bookkeeper.look(lambda book: book.actions())
    assert [each.action_id for each in found] == ["b", "a"]


async def test_it_is_done_in_the_order_of_asking(bookkeeper: Bookkeeper) -> None:
    order: list[int] = []

    def note(_book: Book, number: int) -> None:
        order.append(number)

    await asyncio.gather(*(bookkeeper.do(partial(note, number=number)) for number in range(500)))
    assert order == list(range(500))


async def test_who_goes_away_leaves_what_was_asked_done(bookkeeper: Bookkeeper) -> None:
    asking = asyncio.create_task(bookkeeper.do(lambda book: accept(book, "a")))
    await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert (await bookkeeper.look(lambda book: book.get("a"))).action_id == "a"


async def test_a_transaction_that_cannot_be_written_fails_all_in_it(
    bookkeeper: Bookkeeper, path: Path
) -> None:
    other = sqlite3.connect(path, isolation_level=None)
    other.execute(
        "CREATE TRIGGER full AFTER INSERT ON actions BEGIN SELECT RAISE(ROLLBACK, 'full'); END"
    )
    results = await asyncio.gather(
        bookkeeper.do(lambda book: book.outbox_depth()),
        bookkeeper.do(lambda book: accept(book, "a")),
        bookkeeper.do(lambda book: book.outbox_depth()),
        return_exceptions=True,
    )
    other.execute("DROP TRIGGER full")
    other.close()
    assert isinstance(results[1], StoreFailed)
    await bookkeeper.do(lambda book: accepted(book, "b"))
    assert [each.action_id for each in await bookkeeper.look(lambda book: book.actions())] == ["b"]
