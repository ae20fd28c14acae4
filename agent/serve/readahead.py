"""Which chunk to read next, and whether there is room for it. No threads, no I/O, no locks."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from agent.manifest import Chunk, Image


@dataclass(slots=True, eq=False)
class Queue:
    """One image on its way to its consumer: which pieces were handed out for reading, and room."""

    image: Image
    next: int = 0
    held: int = 0
    opened: bool = False
    dropped: bool = False


class Job(NamedTuple):
    """A piece that is to be read now; its chunk's bytes are counted until they are given back."""

    queue: Queue
    piece: int


class Schedule:
    """Shares a budget of bytes among images that are consumed at the same time.

    Whoever is waited for always gets on: an image with nothing on its way may exceed the budget by
    one chunk, so one that nobody reads can slow others down but never stop them.
    """

    def __init__(self, chunks: list[Chunk], images: Iterable[Image], budget: int) -> None:
        self._chunks = chunks
        self._budget = budget
        self._opened: list[Queue] = []
        self._unopened = deque(Queue(image) for image in images)
        self._held = 0
        self._held_unopened = 0

    @property
    def held(self) -> int:
        """Bytes of the chunks that were picked and not given back."""
        return self._held

    def open(self, image: Image) -> Queue:
        """The queue of an image that somebody consumes from now on, front to back."""
        for queue in self._unopened:
            if queue.image is image:
                self._unopened.remove(queue)
                self._held_unopened -= queue.held
                break
        else:
            queue = Queue(image)
        queue.opened = True
        self._opened.append(queue)
        return queue

    def pick(self) -> Job | None:
        """The next piece to read, if there is one and room for it."""
        queue = self._most_needy() or self._first_unopened()
        if queue is None:
            return None
        raw = self._raw(queue)
        self._count(queue, raw)
        queue.next += 1
        return Job(queue, queue.next - 1)

    def give_back(self, queue: Queue, piece: int) -> None:
        """The bytes of a piece are gone from memory."""
        self._count(queue, -self._chunks[queue.image.pieces[piece].chunk].raw)

    def drop(self, queue: Queue) -> None:
        """Nobody consumes this image any more; what is on its way is still to be given back."""
        queue.dropped = True
        self._opened.remove(queue)

    def _count(self, queue: Queue, raw: int) -> None:
        queue.held += raw
        self._held += raw
        if not queue.opened:
            self._held_unopened += raw

    def _raw(self, queue: Queue) -> int:
        return self._chunks[queue.image.pieces[queue.next].chunk].raw

    def _most_needy(self) -> Queue | None:
        waiting = [queue for queue in self._opened if queue.next < len(queue.image.pieces)]
        queue = min(waiting, key=lambda queue: queue.held, default=None)
        if queue is None or queue.held == 0:
            return queue
        return queue if self._held + self._raw(queue) <= self._budget else None

    def _first_unopened(self) -> Queue | None:
        # Half of the budget is kept for images that are being consumed: CRIU need not ask for them
        # in the manifest's order.
        for queue in self._unopened:
            if queue.next < len(queue.image.pieces):
                raw = self._raw(queue)
                fits = self._held + raw <= self._budget
                return queue if fits and self._held_unopened + raw <= self._budget // 2 else None
        return None
