"""What every store promises. A new store is one more parameter of the fixture, and no new test."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from agent.errors import InvalidArgument
from agent.store import ObjectInfo, Store, checkpoint_path, open_checkpoint, open_store
from agent.store.object_writer import PART_BYTES
from tests.store_contents import BIG, SMALL, content, paths

HOSTILE = [
    "",
    "/",
    "/etc/passwd",
    "..",
    "../up",
    "a/../../up",
    "a/..",
    "./a",
    "a//b",
    "a/",
    ".hidden",
    "a/.hidden",
    "a b",
    "a\\b",
    "a\0b",
    "a\n",
    "ä",
    "a?b",
    "a%2fb",
    "x" * 201,
    "/".join(["x" * 100] * 8),
]


def fill(store: Store, *names: str) -> None:
    for name in names:
        store.put(name, name.encode())


def test_small_object_comes_back(store: Store) -> None:
    store.put("c1/manifest", SMALL)
    assert content(store, "c1/manifest") == SMALL
    assert store.list("") == [ObjectInfo("c1/manifest", len(SMALL))]


@pytest.mark.parametrize("step", [1_000_003, len(BIG)])
def test_big_object_comes_back(store: Store, step: int) -> None:
    writer = store.create("c1/stream-000")
    for start in range(0, len(BIG), step):
        writer.write(memoryview(BIG)[start : start + step])
    writer.commit()
    assert store.size("c1/stream-000") == len(BIG)
    assert content(store, "c1/stream-000") == BIG


@pytest.mark.parametrize("length", [PART_BYTES - 1, PART_BYTES, PART_BYTES + 1])
def test_object_of_about_one_part_comes_back(store: Store, length: int) -> None:
    writer = store.create("c1/stream-000")
    writer.write(BIG[:length])
    writer.commit()
    assert content(store, "c1/stream-000") == BIG[:length]


def test_empty_objects(store: Store) -> None:
    store.put("c1/put", b"")
    store.create("c1/written").commit()
    assert store.list("c1") == [ObjectInfo("c1/put", 0), ObjectInfo("c1/written", 0)]
    assert content(store, "c1/put") == content(store, "c1/written") == b""
    with pytest.raises(EOFError):
        store.read("c1/put", 0, 1)


def test_every_kind_of_buffer(store: Store) -> None:
    writer = store.create("c1/a")
    for data in (b"bytes ", bytearray(b"bytearray "), memoryview(b"xviewx")[1:5], b""):
        writer.write(data)
    writer.commit()
    assert content(store, "c1/a") == b"bytes bytearray view"


@pytest.mark.parametrize("length", [1 << 20, 9 << 20])
def test_caller_may_reuse_its_memory(store: Store, length: int) -> None:
    memory = bytearray(length)
    writer = store.create("c1/a")
    for value in (1, 2, 3):
        memory[:] = bytes([value]) * length
        writer.write(memory)
    memory[:] = bytes(length)
    writer.commit()
    expected = b"".join(bytes([value]) * length for value in (1, 2, 3))
    assert content(store, "c1/a") == expected


def test_ranges(store: Store) -> None:
    store.put("c1/a", SMALL)
    for start, end in [
        (0, 1024),
        (0, 1),
        (1023, 1024),
        (0, 0),
        (1024, 1024),
        (100, 300),
        (1, 1024),
    ]:
        assert bytes(store.read("c1/a", start, end - start)) == SMALL[start:end]


def test_ranges_beyond_the_end(store: Store) -> None:
    store.put("c1/a", SMALL)
    for start, length in [(0, 1025), (1023, 2), (1024, 1), (1025, 0), (5000, 1), (1 << 40, 10)]:
        with pytest.raises(EOFError):
            store.read("c1/a", start, length)


def test_missing_objects(store: Store) -> None:
    store.put("c1/a", SMALL)
    for path in ("c1/b", "c2/a", "c1", "c1/a/b", "nothing"):
        with pytest.raises(FileNotFoundError):
            store.size(path)
        for length in (0, 1):
            with pytest.raises(FileNotFoundError):
                store.read(path, 0, length)


def test_an_unused_store_is_empty(store: Store) -> None:
    assert store.list("") == []
    assert store.list("c1") == []
    assert store.directories() == []
    store.delete("c1/a")
    store.discard("c1")
    with pytest.raises(FileNotFoundError):
        store.size("c1/a")


def test_list_is_by_directory_and_in_order(store: Store) -> None:
    fill(store, "b/z", "b/a", "b-x/a", "b/sub/x", "a/1", "b.a/a")
    every = ["a/1", "b-x/a", "b.a/a", "b/a", "b/sub/x", "b/z"]
    assert store.list("") == [ObjectInfo(path, len(path)) for path in every]
    assert [found.path for found in store.list("b")] == ["b/a", "b/sub/x", "b/z"]
    assert [found.path for found in store.list("b/sub")] == ["b/sub/x"]
    assert store.list("none") == store.list("a/1/x") == store.list("b/su") == []


def test_directories(store: Store) -> None:
    fill(store, "b/deep/er/x", "a/1", "a/2", "top", "a-b/1")
    assert store.directories() == ["a", "a-b", "b"]


def test_delete(store: Store) -> None:
    fill(store, "a/1", "a/2", "b/deep/x")
    store.delete("a/1")
    store.delete("a/1")
    store.delete("b/deep/x")
    store.delete("b/deep")
    assert paths(store) == ["a/2"]
    assert store.directories() == ["a"]
    store.put("a/1", b"the name is free again")


def test_delete_of_a_directory_keeps_its_objects(store: Store) -> None:
    fill(store, "a/1")
    store.delete("a")
    assert paths(store) == ["a/1"]


def test_discard(store: Store) -> None:
    fill(store, "a/1", "a/sub/2", "ab/1", "top")
    unfinished = store.create("a/3")
    unfinished.write(SMALL)
    store.discard("a")
    unfinished.abort()
    store.discard("a")
    assert paths(store) == ["ab/1", "top"]
    assert store.directories() == ["ab"]


def test_discard_refuses_the_whole_store(store: Store) -> None:
    fill(store, "a/1")
    with pytest.raises(InvalidArgument):
        store.discard("")
    assert paths(store) == ["a/1"]


def test_writable_store(store: Store) -> None:
    store.check_writable()
    store.check_writable()
    assert store.list("") == []
    assert store.directories() == []


def test_hostile_paths_are_refused(store: Store) -> None:
    calls: list[Callable[[str], object]] = [
        store.create,
        store.size,
        store.delete,
        store.discard,
        lambda path: store.put(path, b""),
        lambda path: store.read(path, 0, 1),
        lambda path: store.list(path or ".."),  # "" is the store itself
    ]
    for path in HOSTILE:
        for call in calls:
            with pytest.raises(InvalidArgument):
                call(path)
    assert store.list("") == []


def test_url_opens_the_same_store(store: Store) -> None:
    store.put("c1/a", SMALL)
    assert content(open_store(store.url), "c1/a") == SMALL


def test_path_of_a_checkpoint_leads_back_to_it(store: Store) -> None:
    store.put("c1/a", SMALL)
    same, name = open_checkpoint(checkpoint_path(store, "c1"))
    assert name == "c1"
    assert same.url == store.url
    assert content(same, f"{name}/a") == SMALL
