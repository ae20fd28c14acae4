"""The one thread that works in the book, so that the event loop never waits for a disk.

What is asked for while it is busy is done together: one transaction, one fsync, however many have
asked. Nobody is answered before that fsync. 1,000 actions that come at once and fail at once cost
some tens of them instead of 2,000.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from agent.actions.book import Book
from agent.errors import StoreFailed

T = TypeVar("T")

# Of what is done together: what comes behind need not wait longer than some 50 ms.
_MOST = 200


@dataclass(slots=True)
class _Task(Generic[T]):
    work: Callable[[Book], T]
    durable: bool
    answer: asyncio.Future[T]
    result: T | None = None
    error: Exception | None = None

    def run(self, book: Book) -> None:
        try:
            with book.step():
                self.result = self.work(book)
        except Exception as error:  # noqa: BLE001 - it is the one who asked who gets it
            self.error = error

    def settle(self) -> None:
        """On the event loop. Whoever asked may have gone away; what was asked is done."""
        if self.answer.done():
            return
        if self.error is not None:
            self.answer.set_exception(self.error)
        else:
            self.answer.set_result(self.result)  # type: ignore[arg-type] # None is a T then


class Bookkeeper:
    """Works in a book for tasks of one event loop."""

    def __init__(self, open_book: Callable[[], Book]) -> None:
        self._open = open_book
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="book")
        self._tasks: deque[_Task[Any]] = deque()
        self._lock = threading.Lock()
        self._busy = self._closed = False
        self._book: Book | None = None

    async def start(self) -> None:
        """Open the book. Raises what Book raises."""
        loop = asyncio.get_running_loop()
        self._book = await loop.run_in_executor(self._thread, self._open)

    async def close(self) -> None:
        """Do what was asked for, and close the book."""
        self._closed = True
        loop = asyncio.get_running_loop()
        if self._book is not None:
            await loop.run_in_executor(self._thread, self._book.close)
        self._thread.shutdown()

    async def do(self, work: Callable[[Book], T], *, durable: bool = True) -> T:
        """What ``work`` returns, once it is committed.

        It is done in the order of asking, and also when whoever asked is cancelled meanwhile.

        Args:
            durable: False for what may be lost with the machine.

        Raises:
            StoreFailed: nothing was recorded.
        """
        if self._closed:
            raise StoreFailed("write", "the journal", "it is closed")
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()
        with self._lock:
            self._tasks.append(_Task(work, durable, answer))
            idle, self._busy = not self._busy, True
        if idle:
            self._thread.submit(self._work, loop)
        return await answer

    async def look(self, work: Callable[[Book], T]) -> T:
        """What ``work`` returns, for what changes nothing or may be lost with the machine."""
        return await self.do(work, durable=False)

    def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        while tasks := self._take():
            self._together(tasks)
            loop.call_soon_threadsafe(_settle, tasks)

    def _take(self) -> list[_Task[Any]]:
        with self._lock:
            count = min(len(self._tasks), _MOST)
            self._busy = count > 0
            return [self._tasks.popleft() for _ in range(count)]

    def _together(self, tasks: list[_Task[Any]]) -> None:
        try:
            book = self._book
            assert book is not None  # noqa: S101 - it was started
            with book.transaction(durable=any(task.durable for task in tasks)):
                for task in tasks:
                    task.run(book)
        except Exception as error:  # noqa: BLE001 - nothing of it was recorded: all have to know
            for task in tasks:
                task.error = error


def _settle(tasks: list[_Task[Any]]) -> None:
    for task in tasks:
        task.settle()
