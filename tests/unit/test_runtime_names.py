"""What a store's checkpoints are called: each manifest is read once, and nothing stale is told."""

from __future__ import annotations

import secrets
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from agent.catalog import delete
from agent.errors import StoreFailed
from agent.manifest import MANIFEST, Pod, to_bytes
from agent.runtime import names as names_module
from agent.runtime.names import Names
from agent.store.base import Data
from agent.store.memory import MemoryStore
from tests.checkpoints import content, flip, replace, write_checkpoint


class Counting(MemoryStore):
    """Remembers whose manifests were read, and fails for some."""

    def __init__(self) -> None:
        super().__init__(secrets.token_hex(8))
        self.read_whole: list[str] = []
        self.failing: set[str] = set()
        self.seconds = 0.0

    def read(self, path: str, offset: int, length: int) -> Data:
        time.sleep(self.seconds)
        checkpoint_id = path.partition("/")[0]
        if checkpoint_id in self.failing:
            raise StoreFailed("read", self.url, "connection lost")
        self.read_whole.append(checkpoint_id)
        return super().read(path, offset, length)

    def reads(self) -> list[str]:
        """Of whom since the last call."""
        found, self.read_whole = sorted(self.read_whole), []
        return found


@pytest.fixture
def store() -> Counting:
    return Counting()


def _write(
    store: Counting, checkpoint_id: str, name: str = "nightly", day: int = 1, namespace: str = ""
) -> None:
    manifest = write_checkpoint(
        store,
        {"core-1.img": b"core"},
        checkpoint_id=checkpoint_id,
        created_at=f"2025-01-{day:02}T00:00:00Z",
    )
    pod = Pod(uid="u1", namespace=namespace, name="web") if namespace else None
    named = manifest.model_copy(update={"name": name, "pod": pod})
    replace(store, f"{checkpoint_id}/{MANIFEST}", to_bytes(named))


def _find(names: Names, store: Counting, name: str = "nightly") -> list[str]:
    return names.newest_first(store, name, "mine")


def test_the_newest_first(store: Counting) -> None:
    for checkpoint_id, day in {"b": 2, "a": 3, "c": 1}.items():
        _write(store, checkpoint_id, day=day)
    _write(store, "other", "weekly", day=4)
    store.put("Photos/manifest.json", b"")
    assert _find(Names(), store) == ["a", "b", "c"]
    assert _find(Names(), Counting()) == []


def test_a_manifest_is_read_once(store: Counting) -> None:
    names = Names()
    _write(store, "a")
    _write(store, "b", "weekly")
    assert _find(names, store) == ["a"]
    assert store.reads() == ["a", "b"]
    assert _find(names, store) == ["a"]
    assert _find(names, store, "weekly") == ["b"]
    assert store.reads() == []
    _write(store, "c", day=2)
    assert _find(names, store) == ["c", "a"]
    assert store.reads() == ["c"]


def test_those_of_pods_in_other_namespaces_are_left_out(store: Counting) -> None:
    _write(store, "theirs", namespace="theirs")
    _write(store, "mine", namespace="mine")
    _write(store, "nobodys", day=2)
    assert _find(Names(), store) == ["nobodys", "mine"]


def test_what_is_gone_is_forgotten(store: Counting) -> None:
    names = Names()
    _write(store, "a")
    _write(store, "b", day=2)
    assert _find(names, store) == ["b", "a"]
    delete(store, "b")
    assert _find(names, store) == ["a"]
    _write(store, "b", "weekly")
    assert _find(names, store) == ["a"]
    assert _find(names, store, "weekly") == ["b"]


def test_what_is_told_to_be_another_is_read_again(store: Counting) -> None:
    names = Names()
    _write(store, "a")
    assert _find(names, store) == ["a"]
    names.forget("a")
    names.forget("a")
    assert _find(names, store) == ["a"]
    assert store.reads() == ["a", "a"]


def test_damage_and_absence_are_not_remembered(store: Counting) -> None:
    names = Names()
    for checkpoint_id in ("damaged", "unfinished", "whole"):
        _write(store, checkpoint_id)
    whole = content(store, f"unfinished/{MANIFEST}")
    flip(store, f"damaged/{MANIFEST}", -5)
    store.delete(f"unfinished/{MANIFEST}")
    assert _find(names, store) == ["whole"]
    flip(store, f"damaged/{MANIFEST}", -5)
    store.put(f"unfinished/{MANIFEST}", whole)
    assert sorted(_find(names, store)) == ["damaged", "unfinished", "whole"]


def test_so_many_are_remembered_and_the_others_found(
    store: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(names_module, "REMEMBERED", 3)
    names = Names()
    for number in range(5):
        _write(store, f"c{number}", day=number + 1)
    expected = ["c4", "c3", "c2", "c1", "c0"]
    assert _find(names, store) == expected
    assert len(store.reads()) == 5
    assert _find(names, store) == expected
    assert len(store.reads()) == 2
    # There is room again for one.
    delete(store, "c0")
    delete(store, "c1")
    assert _find(names, store) == expected[:3]
    store.reads()
    assert _find(names, store) == expected[:3]
    assert store.reads() == []


def test_what_is_too_long_to_be_remembered_is_found(store: Counting) -> None:
    names = Names()
    long = "n" * 100_000
    _write(store, "long", long)
    for _ in range(2):
        assert _find(names, store, long) == ["long"]
    assert store.reads() == ["long", "long"]


def test_a_store_that_fails_costs_nothing_that_was_read(store: Counting) -> None:
    names = Names()
    for number in range(100):
        _write(store, f"c{number:02}")
    store.failing = {"c50"}
    store.seconds = 0.001
    with pytest.raises(StoreFailed):
        _find(names, store)
    before = store.reads()
    store.failing = set()
    assert len(_find(names, store)) == 100
    assert sorted(before + store.reads()) == [f"c{number:02}" for number in range(100)]


def test_lookups_that_come_together_share_the_reading(store: Counting) -> None:
    names, together = Names(), threading.Barrier(4)
    for number in range(300):
        _write(store, f"c{number:03}")
    store.seconds = 0.001

    def look(_: int) -> list[str]:
        together.wait(10)
        return _find(names, store)

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(look, range(4)))
    assert {len(answer) for answer in answers} == {300}
    # Each for itself it were 1,200. Some are read twice: those that two come upon at a time.
    assert 300 <= len(store.reads()) < 700
