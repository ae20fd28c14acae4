"""What every store promises to who writes: all of it or nothing, once, whoever writes beside it."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from agent.errors import AlreadyExists, StoreFailed
from agent.store import ObjectInfo, Store
from tests.store_contents import SMALL, TWO_PARTS, content, paths


@pytest.mark.parametrize("data", [SMALL, TWO_PARTS], ids=["small", "big"])
def test_invisible_before_commit(store: Store, data: bytes) -> None:
    writer = store.create("c1/a")
    writer.write(data)
    assert store.list("") == []
    assert store.directories() == []
    with pytest.raises(FileNotFoundError):
        store.size("c1/a")
    with pytest.raises(FileNotFoundError):
        store.read("c1/a", 0, 1)
    writer.commit()
    assert store.list("") == [ObjectInfo("c1/a", len(data))]
    assert store.directories() == ["c1"]


@pytest.mark.parametrize("data", [b"", SMALL, TWO_PARTS], ids=["empty", "small", "big"])
def test_abort_leaves_nothing(store: Store, data: bytes) -> None:
    writer = store.create("c1/a")
    writer.write(data)
    writer.abort()
    writer.abort()
    assert store.list("") == []
    assert store.directories() == []
    store.put("c1/a", b"the name is free")


def test_abort_after_commit_does_nothing(store: Store) -> None:
    writer = store.create("c1/a")
    writer.write(SMALL)
    writer.commit()
    writer.abort()
    assert content(store, "c1/a") == SMALL


def test_abort_beside_another_writer(store: Store) -> None:
    """A store that removes empty directories must not take one from under a writer."""
    writer, doomed = store.create("c1/sub/a"), store.create("c1/sub/b")
    doomed.abort()
    writer.write(SMALL)
    writer.commit()
    assert content(store, "c1/sub/a") == SMALL


def test_a_dropped_writer_leaves_nothing_visible(store: Store) -> None:
    def fail() -> None:
        store.create("c1/a").write(TWO_PARTS)
        raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert store.list("") == []


def test_a_closed_writer_refuses(store: Store) -> None:
    committed, aborted = store.create("c1/a"), store.create("c1/b")
    committed.commit()
    aborted.abort()
    for writer in (committed, aborted):
        with pytest.raises(StoreFailed):
            writer.write(b"more")
        with pytest.raises(StoreFailed):
            writer.commit()
    assert paths(store) == ["c1/a"]


def test_nothing_is_overwritten(store: Store) -> None:
    store.put("c1/a", b"first")
    with pytest.raises(AlreadyExists):
        store.put("c1/a", b"second")
    with pytest.raises(AlreadyExists):
        store.create("c1/a").commit()
    assert content(store, "c1/a") == b"first"


@pytest.mark.parametrize("data", [SMALL, TWO_PARTS], ids=["small", "big"])
def test_the_later_of_two_writers_loses(store: Store, data: bytes) -> None:
    first, second = store.create("c1/a"), store.create("c1/a")
    first.write(data)
    second.write(b"x" + data)
    first.commit()
    with pytest.raises(AlreadyExists):
        second.commit()
    second.abort()
    assert content(store, "c1/a") == data
    assert paths(store) == ["c1/a"]


def test_parallel_writers_and_readers(store: Store) -> None:
    def one(number: int) -> None:
        data = random.Random(number).randbytes(2_000_000)
        path = f"c{number % 2}/stream-{number:03}"
        doomed = store.create(f"c{number % 2}/doomed-{number}")
        doomed.write(data)
        writer = store.create(path)
        for start in range(0, len(data), 300_000):
            writer.write(data[start : start + 300_000])
        doomed.abort()
        writer.commit()
        assert bytes(store.read(path, 1_000, 500_000)) == data[1_000:501_000]

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(one, range(16)))
    assert [found.size for found in store.list("")] == [2_000_000] * 16


# Not Swift: it knows no conditional put, so there two writers at the same moment can both win.
@pytest.mark.parametrize("store", ["file", "file-with-names", "memory", "s3-moto"], indirect=True)
def test_one_of_many_writers_wins(store: Store) -> None:
    start = threading.Barrier(8)

    def one(number: int) -> bool:
        start.wait()
        try:
            store.put("c1/manifest", str(number).encode())
        except AlreadyExists:
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        won = list(threads.map(one, range(8)))
    assert won.count(True) == 1
    assert content(store, "c1/manifest") == str(won.index(True)).encode()
