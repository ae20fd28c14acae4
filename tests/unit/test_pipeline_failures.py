"""Chunks whose way to storage breaks: the first failure is the one that is told, and ends all."""

from __future__ import annotations

import random

import pytest

from agent.capture import pipeline as module
from agent.capture.buffers import Closed
from agent.capture.pipeline import CHUNK_SIZE, LEAST_CHUNKS
from agent.compress import Compression
from agent.errors import StoreFailed
from agent.frame import Codec
from agent.store.memory import MemoryStore
from tests.fakes.slow_store import Step
from tests.fakes.stores import failing
from tests.pipelines import feed, pipeline
from tests.waiting import eventually

RANDOM = random.Random(1).randbytes(CHUNK_SIZE)


@pytest.fixture
def small_pool(monkeypatch: pytest.MonkeyPatch) -> int:
    """Chunks in a pool that is full sooner."""
    monkeypatch.setattr(module, "POOL_CHUNKS", LEAST_CHUNKS)
    return LEAST_CHUNKS


class Failures:
    """Counts how often a pipeline tells of its failure."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


@pytest.mark.parametrize("streams", [1, 8])
@pytest.mark.parametrize(("step", "at"), [("create", 0), ("write", 0), ("write", 5), ("commit", 0)])
def test_the_first_failure_is_what_the_owner_gets(
    small_pool: int, step: Step, at: int, streams: int
) -> None:
    store, told = MemoryStore("broken"), Failures()
    broken = failing(store, step, at)
    with pipeline(broken, streams=streams, on_failure=told) as way:
        try:
            feed(way, [RANDOM] * (small_pool + 10))
        except Closed:
            assert way.failure is not None  # the pool was closed under the feeder
        with pytest.raises(StoreFailed) as caught:
            way.finish()
        assert caught.value is way.failure
        assert caught.value.operation == step
        with pytest.raises(StoreFailed):
            way.raise_failure()
        with pytest.raises(Closed):
            way.pool.acquire()

    assert told.count == 1
    assert store.list("") == []


def test_one_commit_that_fails_among_many() -> None:
    """What is durable already stays for the owner to discard; the failure is told all the same."""
    store, told = MemoryStore("broken"), Failures()
    with pipeline(failing(store, "commit", 3), streams=8, on_failure=told) as way:
        feed(way, [b"chunk %d" % number for number in range(100)])
        with pytest.raises(StoreFailed):
            way.finish()

    assert told.count == 1
    assert len(store.list("")) == 3


def test_a_failure_of_compression_is_told_too() -> None:
    told = Failures()
    with pipeline(MemoryStore("compress"), on_failure=told) as way:
        buffer = way.pool.acquire()
        way.submit(buffer, 100)
        gone = way.pool.acquire()
        gone.release()
        way.submit(gone, 100)
        with pytest.raises(ValueError, match="released memoryview"):
            way.finish()

    assert told.count == 1


def test_a_compressor_that_cannot_be_made_is_told_too() -> None:
    told = Failures()
    impossible = Compression(Codec.ZSTD, 99)
    with pipeline(MemoryStore("compress"), on_failure=told, compression=impossible) as way:
        eventually(lambda: told.count, "a failure")
        # Or whoever fills buffers would wait for ever for one that is free again.
        with pytest.raises(Closed):
            way.pool.acquire()
        with pytest.raises(ValueError, match="level must be"):
            way.finish()


def test_only_the_first_failure_counts() -> None:
    told = Failures()
    with pipeline(MemoryStore("two"), on_failure=told) as way:
        way.fail(KeyError("first"))
        way.fail(KeyError("second"))

        with pytest.raises(KeyError, match="first"):
            way.raise_failure()
    assert told.count == 1
