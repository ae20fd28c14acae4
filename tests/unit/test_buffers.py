"""Bounded memory: who waits, who is woken, and what a full budget lets through."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

import pytest

from agent.capture.buffers import (
    RESERVED_CHUNKS,
    BufferPool,
    ByteBudget,
    Closed,
    LentBuffers,
    SharedPool,
)
from tests.waiting import PATIENCE, eventually

T = TypeVar("T")
SIZE = 1 << 16


class Call(Generic[T]):
    """A call in a thread of its own."""

    def __init__(self, function: Callable[[], T]) -> None:
        self._function = function
        self._result: list[T] = []
        self._error: list[BaseException] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._result.append(self._function())
        except Closed as error:
            self._error.append(error)

    @property
    def under_way(self) -> bool:
        """Whether it has not returned."""
        return self._thread.is_alive()

    def result(self) -> T:
        """What it returned, when it does; raises what it raised."""
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "the call still waits"
        if self._error:
            raise self._error[0]
        return self._result[0]


def waiters(condition: threading.Condition) -> int:
    """How many threads wait: CPython keeps a lock for each of them."""
    return len(condition._waiters)  # type: ignore[attr-defined]


def until_waiting(where: BufferPool | ByteBudget, number: int = 1) -> None:
    """Return when ``number`` threads wait for memory."""
    eventually(lambda: waiters(where._changed) == number, "a waiting thread")


def test_buffers_do_not_overlap() -> None:
    pool = BufferPool(count=3, size=SIZE)
    buffers = [pool.acquire() for _ in range(3)]

    for number, buffer in enumerate(buffers):
        buffer[:] = bytes([number]) * SIZE

    assert [bytes(buffer) for buffer in buffers] == [bytes([n]) * SIZE for n in range(3)]


def test_the_last_one_returned_is_the_next_one_out() -> None:
    pool = BufferPool(count=3, size=SIZE)
    first, second = pool.acquire(), pool.acquire()
    first[0], second[0] = 1, 2

    pool.release(second)
    pool.release(first)

    assert pool.acquire()[0] == 1
    assert pool.acquire()[0] == 2


def test_an_empty_pool_makes_wait() -> None:
    pool = BufferPool(count=1, size=SIZE)
    only = pool.acquire()
    call = Call(pool.acquire)
    until_waiting(pool)
    assert call.under_way

    pool.release(only)

    assert len(call.result()) == SIZE


def test_closing_a_pool_wakes_everybody() -> None:
    pool = BufferPool(count=1, size=SIZE)
    pool.acquire()
    calls = [Call(pool.acquire) for _ in range(3)]
    until_waiting(pool, 3)

    pool.close()

    for call in calls:
        with pytest.raises(Closed):
            call.result()


def test_a_closed_pool_gives_nothing_but_takes_back() -> None:
    pool = BufferPool(count=2, size=SIZE)
    buffer = pool.acquire()
    pool.close()

    pool.release(buffer)

    with pytest.raises(Closed):
        pool.acquire()


Pool = BufferPool | LentBuffers


def own() -> tuple[Pool, threading.Condition]:
    """Two buffers, and what who waits for one waits on."""
    pool = BufferPool(count=2, size=SIZE)
    return pool, pool._changed


def lent() -> tuple[Pool, threading.Condition]:
    """The same, and all other memory is somebody else's."""
    pool = shared(1)
    took(pool.lend(), 1)
    mine = pool.lend()
    took(mine, RESERVED_CHUNKS - 2)
    return mine, pool.changed


@pytest.mark.parametrize("made", [own, lent])
def test_nobody_waits_for_what_is_not_coming(
    made: Callable[[], tuple[Pool, threading.Condition]],
) -> None:
    pool, changed = made()
    first, second = pool.acquire_coming(), pool.acquire_coming()
    assert first is not None
    assert second is not None
    assert pool.acquire_coming() is None

    pool.hand_over(first)
    calls = [Call(pool.acquire_coming) for _ in range(3)]
    eventually(lambda: waiters(changed) == 3, "three that wait")
    pool.release(first)

    # One has it, and for the others nothing is left that could come.
    assert sorted(call.result() is None for call in calls) == [False, True, True]
    pool.close()
    with pytest.raises(Closed):
        pool.acquire_coming()


def shared(count: int) -> SharedPool:
    """Staging memory of so many buffers."""
    return SharedPool(count * SIZE, size=SIZE)


def took(lent: LentBuffers, count: int) -> list[memoryview]:
    """So many buffers."""
    return [lent.acquire() for _ in range(count)]


def test_staging_memory_is_in_memory_before_anybody_asks() -> None:
    pool = shared(64)

    assert pool.count == len(pool.free) == 64
    assert resident(pool.free[0]) >= 64 * SIZE


def test_operations_share_what_is_there() -> None:
    pool = shared(10)
    one, other = pool.lend(), pool.lend()

    mine, theirs = took(one, 6), took(other, 4)

    assert pool.free == []
    assert one.capacity == 6 + RESERVED_CHUNKS
    for number, buffer in enumerate([*mine, *theirs]):
        buffer[:] = bytes([number]) * SIZE
    assert [buffer[0] for buffer in [*mine, *theirs]] == list(range(10))
    one.release(mine[0])
    assert len(pool.free) == 1
    assert other.capacity == 5 + RESERVED_CHUNKS


def test_nobody_waits_for_another_operation() -> None:
    """One whose store is stuck holds all of it; another goes on with a reserve of its own."""
    pool = shared(4)
    stuck, other = pool.lend(), pool.lend()
    took(stuck, 4)

    reserve = took(other, RESERVED_CHUNKS)
    call = Call(other.acquire)
    eventually(lambda: waiters(pool.changed) == 1, "a waiting thread")
    other.release(reserve[0])

    assert len(call.result()) == SIZE
    assert pool.free == []


def test_closing_is_felt_by_one_operation_only() -> None:
    pool = shared(1)
    one, other = pool.lend(), pool.lend()
    [buffer] = took(other, 1)
    took(one, RESERVED_CHUNKS)
    call = Call(one.acquire)
    eventually(lambda: waiters(pool.changed) == 1, "a waiting thread")

    one.close()

    with pytest.raises(Closed):
        call.result()
    other.release(buffer)
    assert len(other.acquire()) == SIZE


def test_everything_comes_back_at_the_end() -> None:
    pool = shared(5)
    failed, kept = pool.lend(), pool.lend()
    lost = took(failed, 3)
    [buffer] = took(kept, 1)

    failed.end()
    # A thread that comes late with one of them changes nothing.
    failed.release(lost[0])

    assert len(pool.free) == 4
    assert len({id(each) for each in pool.free}) == 4
    assert all(each is not buffer for each in pool.free)
    with pytest.raises(Closed):
        failed.acquire()


def resident(buffer: memoryview) -> int:
    """Bytes in memory of the mapping that a buffer is part of."""
    address = ctypes.addressof(ctypes.c_char.from_buffer(buffer))
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        head, value, *_ = line.split()
        if not head.endswith(":"):
            start, end = (int(part, 16) for part in head.split("-"))
            inside = start <= address < end
        elif inside and head == "Rss:":
            return int(value) << 10
    raise AssertionError("the buffer is in no mapping")


@pytest.mark.parametrize(("length", "buffers"), [(1, 1), (SIZE, 1), (SIZE + 1, 2), (1 << 40, 4)])
def test_memory_is_faulted_in_beforehand(length: int, buffers: int) -> None:
    pool = BufferPool(count=4, size=SIZE)
    inside = pool.acquire()
    before = resident(inside)

    pool.populate(length)

    assert resident(inside) - before == buffers * SIZE


def test_memory_of_a_closed_pool_is_not() -> None:
    pool = BufferPool(count=4, size=SIZE)
    inside = pool.acquire()
    before = resident(inside)
    pool.close()

    pool.populate(4 * SIZE)

    assert resident(inside) == before


def test_a_budget_is_given_out_up_to_its_limit() -> None:
    budget = ByteBudget(100)
    budget.take(60)
    budget.take(40)
    call = Call(lambda: budget.take(1))
    until_waiting(budget)

    budget.give(40)

    call.result()


def test_more_than_the_limit_goes_alone() -> None:
    budget = ByteBudget(100)
    budget.take(1000)
    call = Call(lambda: budget.take(1))
    until_waiting(budget)

    budget.give(1000)

    call.result()


def test_more_than_the_limit_waits_for_all_others() -> None:
    budget = ByteBudget(100)
    budget.take(1)
    call = Call(lambda: budget.take(1000))
    until_waiting(budget)

    budget.give(1)

    call.result()


def test_small_ones_pass_a_big_one_that_waits() -> None:
    budget = ByteBudget(100)
    budget.take(50)
    big = Call(lambda: budget.take(60))
    until_waiting(budget)

    budget.take(50)

    assert big.under_way
    budget.give(100)
    big.result()


def test_nothing_is_always_had() -> None:
    budget = ByteBudget(100)
    budget.take(100)

    budget.take(0)


def test_closing_a_budget_wakes_everybody() -> None:
    budget = ByteBudget(100)
    budget.take(100)
    calls = [Call(lambda: budget.take(1)) for _ in range(3)]
    until_waiting(budget, 3)

    budget.close()

    for call in calls:
        with pytest.raises(Closed):
            call.result()
    with pytest.raises(Closed):
        budget.take(0)
