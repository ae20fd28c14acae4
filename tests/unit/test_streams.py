"""Streams side by side: what is put is stored or given back, whatever storage does."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from agent.capture.buffers import Closed
from agent.capture.streams import WAITING_BYTES, Frame, StreamSet
from agent.errors import StoreFailed
from agent.frame import (
    FRAME_HEADER_SIZE,
    STREAM_HEADER_SIZE,
    Codec,
    FrameHeader,
    digest,
    unpack_frame_header,
)
from agent.store.base import Data, Store
from agent.store.memory import MemoryStore
from tests.fakes.slow_store import Gate, Step, gated
from tests.fakes.stores import failing
from tests.pipelines import ID, threads
from tests.unit.threads import running
from tests.waiting import eventually

PAYLOAD = bytes(range(256)) * 4


class Given:
    """Makes frames and counts how often the memory of each is given back."""

    def __init__(self) -> None:
        self.back: Counter[int] = Counter()
        self._lock = threading.Lock()

    def frame(self, number: int, payload: bytes = PAYLOAD) -> Frame:
        """Frame number ``number``."""

        def done() -> None:
            with self._lock:
                self.back[number] += 1

        return Frame(number, Codec.NONE, len(payload), payload, digest(payload), done)


@contextmanager
def streams(store: Store, count: int, errors: list[BaseException]) -> Iterator[StreamSet]:
    made = StreamSet(store, ID, count, errors.append)
    made.start()
    try:
        yield made
    finally:
        made.abort()
        assert threads() == []


@pytest.mark.parametrize("count", [1, 3])
def test_the_index_says_where_each_frame_is(count: int) -> None:
    store, given, errors = MemoryStore("streams"), Given(), list[BaseException]()
    with streams(store, count, errors) as target:
        for number in range(20):
            target.put(given.frame(number))
        found, index = target.finish()

    assert sorted(index) == list(range(20))
    assert sum(stream.frames for stream in found) == 20
    for number, chunk in index.items():
        path = f"{ID}/{found[chunk.stream].path}"
        data = bytes(store.read(path, chunk.offset, FRAME_HEADER_SIZE + chunk.stored))
        header = unpack_frame_header(data[:FRAME_HEADER_SIZE])
        assert header == FrameHeader(Codec.NONE, number, 1024, 1024, digest(PAYLOAD))
        assert data[FRAME_HEADER_SIZE:] == PAYLOAD
        assert chunk.digest == digest(PAYLOAD).hex()
        assert chunk.offset >= STREAM_HEADER_SIZE
    assert given.back == Counter(range(20))
    assert errors == []


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize(("step", "at"), [("create", 0), ("write", 0), ("write", 9), ("commit", 0)])
def test_memory_comes_back_also_when_storage_fails(step: Step, at: int, count: int) -> None:
    given, errors = Given(), list[BaseException]()
    with streams(failing(MemoryStore("broken"), step, at), count, errors) as target:
        for number in range(50):
            target.put(given.frame(number))
        with pytest.raises(Closed):
            target.finish()

    assert given.back == Counter(range(50))
    assert errors
    assert all(isinstance(error, StoreFailed) for error in errors)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_memory_comes_back_also_when_nothing_can_be_dropped() -> None:
    """What waits for it may hold frozen tasks."""

    class Writer:
        def write(self, data: Data) -> None:
            raise StoreFailed("write", "broken", "gone")

        def commit(self) -> None:
            raise AssertionError

        def abort(self) -> None:
            raise OSError("gone")

    class Broken(MemoryStore):
        def create(self, path: str) -> Any:  # noqa: ANN401 - a writer of another kind
            return Writer()

    given, errors = Given(), list[BaseException]()
    with streams(Broken("broken"), 2, errors) as target:
        for number in range(50):
            target.put(given.frame(number))
        with pytest.raises(Closed):
            target.finish()

    assert given.back == Counter(range(50))
    assert {type(error) for error in errors} == {StoreFailed}


def test_one_stream_that_is_stuck_does_not_stop_the_others() -> None:
    gate = Gate()
    first = iter([gate])
    given, errors = Given(), list[BaseException]()

    def pass_() -> None:
        if (stuck := next(first, None)) is not None:
            stuck()

    with streams(gated(MemoryStore("stuck"), "write", pass_), 2, errors) as target:
        gate.reached.wait()
        for number in range(30):
            target.put(given.frame(number))
        # One of the two has nothing of its own left to do, so the rest is in the other's queue.
        eventually(lambda: given.back, "a stream that goes on")
        gate.open()
        target.finish()

    assert given.back == Counter(range(30))


def test_waiting_bytes_are_bounded() -> None:
    gate, given, errors = Gate(), Given(), list[BaseException]()
    half = bytes(WAITING_BYTES // 2)
    with streams(gated(MemoryStore("stuck"), "write", gate), 4, errors) as target:
        target.put(given.frame(0, half))
        target.put(given.frame(1, half))
        with running(target.put, given.frame(2)), gate:
            eventually(lambda: target._budget._changed._waiters, "a put that waits")  # type: ignore[attr-defined]
        _, index = target.finish()

    assert sorted(index) == [0, 1, 2]


def test_giving_up_wakes_who_waits() -> None:
    gate, given, errors = Gate(), Given(), list[BaseException]()
    woken: list[BaseException] = []
    with streams(gated(MemoryStore("stuck"), "write", gate), 1, errors) as target:
        target.put(given.frame(0, bytes(WAITING_BYTES)))

        def put() -> None:
            try:
                target.put(given.frame(1))
            except Closed as error:
                woken.append(error)

        with running(put) as waiting, running(target.abort), gate:
            waiting.join()
        with pytest.raises(Closed):
            target.put(given.frame(2))

    assert len(woken) == 1
    assert given.back == Counter([0])
