"""The catalogue: what is listed, and what is gone afterwards."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent.catalog import delete, list_checkpoints
from agent.errors import CheckpointNotFound, StoreFailed
from agent.manifest import MANIFEST
from agent.store.base import Data
from agent.store.file import FileStore
from agent.store.memory import MemoryStore
from tests.checkpoints import ID, flip, replace, write_checkpoint

IMAGES = {"core-1.img": b"core", "pages-1.img": bytes(1000)}


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore("catalog")


def paths(store: MemoryStore | FileStore) -> list[str]:
    return [found.path for found in store.list("")]


def test_nothing_is_listed_where_nothing_is(store: MemoryStore) -> None:
    assert list_checkpoints(store) == []


def test_the_newest_comes_first(store: MemoryStore) -> None:
    for name, created in {"b": "2025-01-02", "a": "2025-01-03", "c": "2025-01-01"}.items():
        write_checkpoint(store, IMAGES, checkpoint_id=name, created_at=f"{created}T00:00:00Z")
    assert [one.checkpoint_id for one in list_checkpoints(store)] == ["a", "b", "c"]


def test_a_line_tells_what_there_is(store: MemoryStore) -> None:
    manifest = write_checkpoint(store, IMAGES, IMAGES, streams=3)
    (line,) = list_checkpoints(store)
    assert (line.checkpoint_id, line.path) == (ID, f"memory://catalog/{ID}")
    assert (line.kind, line.targets) == ("runc", ("c0", "c1"))
    assert (line.bytes_raw, line.bytes_stored) == (2008, manifest.bytes_stored)
    assert (line.codec, line.streams, line.frozen_seconds) == ("zstd:1", 3, 0.25)
    assert line.problem is None


def test_what_was_not_committed_and_what_is_not_ours_is_no_checkpoint(store: MemoryStore) -> None:
    store.put("partial/stream-000", b"")
    store.put("Photos/manifest.json", b"")
    store.put("file", b"")
    assert list_checkpoints(store) == []


def test_a_damaged_and_a_newer_one_are_listed_as_such(store: MemoryStore) -> None:
    for name in ("damaged", "newer", "whole"):
        write_checkpoint(store, IMAGES, checkpoint_id=name)
    flip(store, f"damaged/{MANIFEST}", -5)
    envelope = {"format": 7, "bytes": 0, "xxh3_128": ""}
    replace(store, f"newer/{MANIFEST}", json.dumps(envelope).encode() + b"\n")
    found = {one.checkpoint_id: one.problem for one in list_checkpoints(store)}
    assert found["whole"] is None
    assert (found["damaged"] or "").startswith("damaged: the manifest")
    assert "format 7" in (found["newer"] or "")
    assert list_checkpoints(store)[0].checkpoint_id == "whole"


def test_a_store_that_fails_is_not_an_empty_one() -> None:
    class Failing(MemoryStore):
        def read(self, path: str, offset: int, length: int) -> Data:
            raise StoreFailed("read", self.url, "connection lost")

    store = Failing("failing")
    write_checkpoint(store, IMAGES)
    with pytest.raises(StoreFailed):
        list_checkpoints(store)


def test_deleting_takes_one_checkpoint_and_its_directory(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    write_checkpoint(store, IMAGES, checkpoint_id="a")
    write_checkpoint(store, IMAGES, checkpoint_id="b")
    delete(store, "a")
    assert [path.name for path in tmp_path.iterdir()] == ["b"]
    with pytest.raises(CheckpointNotFound):
        delete(store, "a")


def test_the_manifest_goes_first() -> None:
    class Failing(MemoryStore):
        def delete(self, path: str) -> None:
            if "stream" in path:
                raise StoreFailed("delete", self.url, "connection lost")
            super().delete(path)

    store = Failing("failing")
    write_checkpoint(store, IMAGES, streams=1)
    with pytest.raises(StoreFailed):
        delete(store, ID)
    assert paths(store) == [f"{ID}/stream-000"]


def test_a_damaged_checkpoint_can_be_deleted(store: MemoryStore) -> None:
    write_checkpoint(store, IMAGES)
    flip(store, f"{ID}/{MANIFEST}", 3)
    delete(store, ID)
    assert paths(store) == []


@pytest.mark.parametrize("name", ["missing", "..", "a/b", ""])
def test_what_is_not_there_cannot_be_deleted(store: MemoryStore, name: str) -> None:
    write_checkpoint(store, IMAGES)
    before = paths(store)
    with pytest.raises(CheckpointNotFound):
        delete(store, name)
    assert paths(store) == before


def test_other_programs_files_stay(store: MemoryStore) -> None:
    """A browser's extension has a manifest.json, too."""
    store.put("extension/manifest.json", b"{}")
    store.put("extension/icon.png", b"")
    with pytest.raises(CheckpointNotFound):
        delete(store, "extension")
    write_checkpoint(store, IMAGES)
    store.put(f"{ID}/notes.txt", b"mine")
    delete(store, ID)
    assert paths(store) == ["extension/icon.png", "extension/manifest.json", f"{ID}/notes.txt"]
