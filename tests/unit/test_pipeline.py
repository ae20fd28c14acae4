"""Chunks on their way to storage that is good, slow or broken."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from agent.capture import pipeline as module
from agent.capture.buffers import Closed
from agent.capture.pipeline import CHUNK_SIZE, LEAST_CHUNKS, POOL_CHUNKS, Pipeline
from agent.compress import parse_compression
from agent.frame import (
    END_MARK_SIZE,
    MAX_STREAMS,
    STREAM_HEADER_SIZE,
    Codec,
    EndMark,
    check_stream_header,
    unpack_end_mark,
)
from agent.store.base import Store
from agent.store.file import FileStore
from agent.store.memory import MemoryStore
from tests.fakes.slow_store import Gate, gated
from tests.pipelines import (
    ID,
    feed,
    is_empty,
    manifest,
    memory,
    pipeline,
    read_images,
    threads,
)
from tests.unit.threads import running
from tests.waiting import PATIENCE, eventually

RANDOM = random.Random(1).randbytes(CHUNK_SIZE)
CHUNKS = [
    b"x",
    RANDOM,
    bytes(CHUNK_SIZE),
    b"a line of text\n" * 10_000,
    RANDOM[:1000] + bytes(1000),
    *([b"chunk %d" % number for number in range(100)]),
]
EMPTY_STREAM = STREAM_HEADER_SIZE + END_MARK_SIZE


@pytest.fixture(params=["memory", "file"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return MemoryStore("pipeline") if request.param == "memory" else FileStore(tmp_path / "store")


@pytest.mark.parametrize("compression", ["none", "lz4", "zstd:1", "zstd:-7"])
@pytest.mark.parametrize("streams", [1, 2, MAX_STREAMS])
def test_everything_comes_back(store: Store, streams: int, compression: str) -> None:
    with pipeline(store, streams=streams, compression=compression) as way:
        feed(way, CHUNKS)
        finished = way.finish()
        raw, stored = way.bytes_raw, way.bytes_stored

    made = manifest(finished)
    assert read_images(store, made) == {"pages-1.img": b"".join(CHUNKS)}
    assert [chunk.raw for chunk in made.chunks] == [len(chunk) for chunk in CHUNKS]
    assert raw == made.bytes_raw
    assert stored == made.bytes_stored == sum(each.size for each in store.list(""))


@pytest.mark.parametrize("streams", [1, 3])
def test_streams_are_what_the_format_says(store: Store, streams: int) -> None:
    with pipeline(store, streams=streams) as way:
        feed(way, CHUNKS)
        found, _ = way.finish()

    assert [stream.path for stream in found] == [f"stream-{n:03}" for n in range(streams)]
    assert sum(stream.frames for stream in found) == len(CHUNKS)
    for number, stream in enumerate(found):
        data = bytes(store.read(f"{ID}/{stream.path}", 0, stream.bytes))
        assert store.size(f"{ID}/{stream.path}") == stream.bytes
        check_stream_header(data[:STREAM_HEADER_SIZE], ID, number)
        assert unpack_end_mark(data[-END_MARK_SIZE:]) == EndMark(stream.frames, stream.bytes)


@pytest.mark.parametrize("streams", [1, MAX_STREAMS])
def test_nothing_at_all_is_stored_as_well(store: Store, streams: int) -> None:
    with pipeline(store, streams=streams) as way:
        found, chunks = way.finish()

    assert chunks == []
    assert [stream.bytes for stream in found] == [EMPTY_STREAM] * streams


def test_all_streams_get_their_share() -> None:
    store = MemoryStore("share")
    with pipeline(store, streams=4, compression="none") as way:
        feed(way, [RANDOM[:100_000]] * 40)
        found, _ = way.finish()

    assert all(stream.frames for stream in found)


@pytest.fixture
def small_pool(monkeypatch: pytest.MonkeyPatch) -> int:
    """Chunks in a pool that is full sooner."""
    monkeypatch.setattr(module, "POOL_CHUNKS", LEAST_CHUNKS)
    return LEAST_CHUNKS


def test_raw_memory_is_bounded_while_storage_is_stuck(small_pool: int) -> None:
    """Not one buffer more than the pool has, and the one who feeds waits."""
    store, gate = MemoryStore("stuck"), Gate()
    total = small_pool + 10
    with (
        pipeline(gated(store, "write", gate), compression="none") as way,
        running(feed, way, [RANDOM] * total) as feeder,
        gate,
    ):
        eventually(lambda: way.chunks == small_pool and is_empty(way), "an empty pool")
        assert gate.waiting == 2
        assert store.list("") == []

        gate.open()
        feeder.join()
        finished = way.finish()

    assert read_images(store, manifest(finished)) == {"pages-1.img": RANDOM * total}


def test_compressed_memory_is_bounded_while_storage_is_stuck(small_pool: int) -> None:
    """The streams take so many bytes and no more, then the workers wait, then the pool is empty."""
    store, gate = MemoryStore("stuck"), Gate()
    # Half random: smaller when compressed, so that the buffer is free at once.
    chunk = RANDOM[: CHUNK_SIZE // 2] + bytes(CHUNK_SIZE // 2)
    with (
        pipeline(gated(store, "write", gate), compression="lz4") as way,
        running(feed, way, [chunk] * (small_pool + 60)) as feeder,
        gate,
    ):
        eventually(lambda: is_empty(way), "an empty pool")
        # 32 MiB of a bit more than 1 MiB each are 31, one is with each of the workers.
        assert way.chunks <= small_pool + 31 + len(way._workers)

        gate.open()
        feeder.join()
        _, chunks = way.finish()

    assert len(chunks) == small_pool + 60


@pytest.mark.parametrize("compression", ["zstd", "zstd:1"])
def test_only_a_codec_without_a_level_lets_chunks_through(compression: str) -> None:
    """With so many waiting, CRIU would soon wait too, and the frozen tasks with it."""
    store = MemoryStore("yield")
    way = Pipeline(
        store,
        ID,
        streams=2,
        compression=parse_compression(compression),
        on_failure=lambda: None,
    )
    feed(way, [bytes(1000)] * (POOL_CHUNKS * 3 // 4 + 5))
    way.start(0)
    _, chunks = way.finish()
    way.abort()

    first, last = chunks[0], chunks[-1]
    assert first.codec is (Codec.NONE if compression == "zstd" else Codec.ZSTD)
    assert last.codec is Codec.ZSTD


class Hungry(MemoryStore):
    """As a store whose writers hold two chunks each."""

    @property
    def writer_memory(self) -> int:
        return 2 * CHUNK_SIZE


@pytest.mark.parametrize(("streams", "spared"), [(1, 2), (4, 8), (64, 72)])
def test_memory_of_the_store_s_writers_is_spared(streams: int, spared: int) -> None:
    with pipeline(Hungry("hungry"), streams=streams) as way:
        assert memory(way).capacity == module.POOL_CHUNKS - spared


@pytest.mark.parametrize("streams", [1, MAX_STREAMS])
def test_giving_up_leaves_no_thread_and_no_object(store: Store, streams: int) -> None:
    with pipeline(store, streams=streams) as way:
        feed(way, CHUNKS)
        way.abort()

        eventually(lambda: not threads(), "the end of all threads")
        assert store.list("") == []
        with pytest.raises(Closed):
            way.pool.acquire()
        way.abort()


def test_giving_up_does_not_store_what_still_waits(small_pool: int) -> None:
    """Whoever interrupts a checkpoint to slow storage does not wait for all that is in memory."""
    store, gate = MemoryStore("slow"), Gate()
    written = 0

    def pass_() -> None:
        nonlocal written
        gate()
        written += 1

    with pipeline(gated(store, "write", pass_), streams=1, compression="none") as way:
        feed(way, [RANDOM] * small_pool)
        with gate:
            assert gate.reached.wait(PATIENCE)
            with running(way.abort), gate:
                eventually(lambda: memory(way)._closed, "the pool being closed")

    # The stream's header, which was under way, and perhaps its end.
    assert written <= 2
    assert store.list("") == []


def test_giving_up_before_it_began() -> None:
    store = MemoryStore("never")
    way = Pipeline(
        store, ID, streams=4, compression=parse_compression("lz4"), on_failure=lambda: None
    )

    way.abort()

    assert store.list("") == []
