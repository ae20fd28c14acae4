"""Memory that the data path works in: allocated once, reused, bounded.

The first touch of fresh memory costs more than the copy into it (a page fault per 4 KiB), so
buffers come from one mapping that is faulted in beforehand and handed round.
"""

from __future__ import annotations

import contextlib
import mmap
import threading
from typing import Protocol

from agent.config import MIB

# What the pipeline works in: the unit of compression and of access.
CHUNK_SIZE = 2 * MIB

# Buffers that an operation has for itself beside the shared ones. Enough for it to go on while
# another operation, whose store is slow, holds all of those: every member that is dumped holds a
# few partly filled ones, and each thread one. With fewer than those, chunks are submitted before
# they are full.
RESERVED_CHUNKS = 24

# Linux 5.14: fault pages in for writing, without changing their content.
_MADV_POPULATE_WRITE = 23


class Closed(Exception):
    """The pool or budget was closed while somebody waited: the operation has failed elsewhere."""


class Buffers(Protocol):
    """Memory of one operation, in buffers of ``size`` bytes. Thread-safe."""

    size: int

    @property
    def capacity(self) -> int:
        """How many buffers the operation can have now, those that it has included."""

    def populate(self, length: int) -> None:
        """Fault ``length`` bytes of it in."""

    def acquire(self) -> memoryview:
        """A buffer; waits until there is one. Raises Closed."""

    def acquire_coming(self) -> memoryview | None:
        """A buffer; waits for one as long as any is on its way back. Raises Closed.

        None: all that there are lie with those who fill them, of whom this one may be.
        """

    def hand_over(self, buffer: memoryview) -> None:
        """It is full enough, and on its way: somebody will give it back."""

    def release(self, buffer: memoryview) -> None:
        """Give a buffer back."""

    def close(self) -> None:
        """Wake everybody who waits, with Closed."""

    def end(self) -> None:
        """The operation is over and none of its threads left: its buffers are somebody else's."""


class BufferPool:
    """``count`` buffers of ``size`` bytes. Thread-safe; the last one returned is given out first,

    so a small dump touches little memory and the caches stay warm.
    """

    def __init__(self, *, count: int, size: int) -> None:
        self.size = size
        self._memory = mmap.mmap(-1, count * size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        with contextlib.suppress(OSError):  # a kernel without huge pages is only slower
            self._memory.madvise(mmap.MADV_HUGEPAGE)
        view = memoryview(self._memory)
        self._free = [view[at * size : (at + 1) * size] for at in reversed(range(count))]
        self._coming: set[int] = set()
        self._count = count
        self._changed = threading.Condition()
        self._closed = False

    @property
    def capacity(self) -> int:
        """How many buffers there are."""
        return self._count

    def populate(self, length: int) -> None:
        """Fault ``length`` bytes of it in; stops early when the pool is closed.

        3 ms a MiB on a virtual machine whose host has not backed the memory yet, 0.1 ms after.
        """
        for at in range(0, min(length, self._count * self.size), self.size):
            if self._closed:
                return
            try:
                self._memory.madvise(_MADV_POPULATE_WRITE, at, self.size)
            except OSError:
                return  # before Linux 5.14 pages come as they are touched

    def acquire(self) -> memoryview:
        """A buffer; waits until there is one. Raises Closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._free or self._closed)
            if self._closed:
                raise Closed
            return self._free.pop()

    def acquire_coming(self) -> memoryview | None:
        """A buffer; waits for one as long as any is on its way back. Raises Closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._free or self._closed or not self._coming)
            if self._closed:
                raise Closed
            return self._free.pop() if self._free else None

    def hand_over(self, buffer: memoryview) -> None:
        """It is on its way: somebody will give it back."""
        with self._changed:
            self._coming.add(id(buffer))

    def release(self, buffer: memoryview) -> None:
        """Give a buffer back."""
        with self._changed:
            self._coming.discard(id(buffer))
            self._free.append(buffer)
            if self._coming:
                self._changed.notify()
            else:
                # One of them gets it, and the others hear that no other is coming.
                self._changed.notify_all()

    def close(self) -> None:
        """Wake everybody who waits, with Closed."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def end(self) -> None:
        """Its memory goes with the last buffer."""


class SharedPool:
    """Staging memory of ``length`` bytes for all operations of a process, faulted in beforehand.

    With as much of it as an image has, its owner runs again when the copy is done, while it is
    still being compressed and stored. Blocks for 0.1 to 3 ms a MiB when it is made.
    """

    def __init__(self, length: int, *, size: int = CHUNK_SIZE) -> None:
        self.size = size
        self.count = max(1, length // size)
        self._memory = BufferPool(count=self.count, size=size)
        self._memory.populate(self.count * size)
        self.free = [self._memory.acquire() for _ in range(self.count)]
        # One for all operations: who waits may get a buffer that another gives back.
        self.changed = threading.Condition()

    def lend(self) -> LentBuffers:
        """Memory for one operation."""
        return LentBuffers(self)


class LentBuffers:
    """One operation's share of a :class:`SharedPool`: as much of it as is free, and a reserve.

    The reserve is the operation's own, costs nothing until the shared memory is all taken, and
    keeps operations from waiting for each other. Closing it is felt by this operation only.
    """

    def __init__(self, shared: SharedPool) -> None:
        self.size = shared.size
        self._shared = shared
        self._reserve = BufferPool(count=RESERVED_CHUNKS, size=shared.size)
        self._spare = [self._reserve.acquire() for _ in range(RESERVED_CHUNKS)]
        self._own = {id(buffer) for buffer in self._spare}
        self._held: dict[int, memoryview] = {}
        # Of this operation: what others give back they may take again.
        self._coming: set[int] = set()
        self._closed = False

    @property
    def capacity(self) -> int:
        """What is free, what it has, and its reserve."""
        with self._shared.changed:
            return len(self._shared.free) + len(self._held) + RESERVED_CHUNKS

    def populate(self, length: int) -> None:
        """The shared memory is faulted in already; the reserve as far as that is too small."""
        missing = length - len(self._shared.free) * self.size
        if missing > 0:
            self._reserve.populate(missing)

    def acquire(self) -> memoryview:
        """A buffer; waits until there is one. Raises Closed."""
        with self._shared.changed:
            self._shared.changed.wait_for(lambda: self._closed or self._shared.free or self._spare)
            return self._take()

    def acquire_coming(self) -> memoryview | None:
        """A buffer; waits for one as long as any of its own is on its way back. Raises Closed."""
        with self._shared.changed:
            self._shared.changed.wait_for(
                lambda: self._closed or self._shared.free or self._spare or not self._coming
            )
            has_any = self._closed or self._shared.free or self._spare
            return self._take() if has_any else None

    def _take(self) -> memoryview:
        if self._closed:
            raise Closed
        if not self._shared.free:
            return self._spare.pop()
        buffer = self._shared.free.pop()
        self._held[id(buffer)] = buffer
        return buffer

    def hand_over(self, buffer: memoryview) -> None:
        """It is on its way: somebody will give it back."""
        with self._shared.changed:
            self._coming.add(id(buffer))

    def release(self, buffer: memoryview) -> None:
        """Give a buffer back, to everybody or to the reserve."""
        with self._shared.changed:
            self._coming.discard(id(buffer))
            if id(buffer) in self._own:
                self._spare.append(buffer)
            elif self._held.pop(id(buffer), None) is not None:
                self._shared.free.append(buffer)
            # All: one that waits for this operation's reserve is not woken by another's buffer.
            self._shared.changed.notify_all()

    def close(self) -> None:
        """Wake everybody of this operation who waits, with Closed."""
        with self._shared.changed:
            self._closed = True
            self._shared.changed.notify_all()
        self._reserve.close()

    def end(self) -> None:
        """Give back what is left: half-filled buffers of an operation that has failed."""
        self.close()
        with self._shared.changed:
            self._shared.free += self._held.values()
            self._held.clear()
            self._shared.changed.notify_all()


class ByteBudget:
    """At most ``limit`` bytes taken at a time.

    One taker may exceed it when nothing else is taken.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.taken = 0
        self._changed = threading.Condition()
        self._closed = False

    def take(self, amount: int) -> None:
        """Wait for room and take it. Raises Closed."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._closed or not self.taken or self.taken + amount <= self._limit
            )
            if self._closed:
                raise Closed
            self.taken += amount

    def give(self, amount: int) -> None:
        """Return what was taken."""
        with self._changed:
            self.taken -= amount
            self._changed.notify_all()

    def close(self) -> None:
        """Wake everybody who waits, with Closed."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
