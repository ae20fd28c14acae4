"""What both exports promise of their target: whole, or as if nothing had been asked for."""

from __future__ import annotations

import asyncio
import random
import resource
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from agent.archive.write import ArchiveRequest, export_archives
from agent.errors import AlreadyExists, CheckpointCorrupt, CheckpointNotFound, StoreFailed
from agent.export import export
from agent.manifest import Manifest
from agent.store.base import Data, Store
from agent.store.memory import MemoryStore
from tests.checkpoints import ID, flip_payload, write_checkpoint
from tests.waiting import PATIENCE

IMAGES = {
    "inventory.img": b"inventory",
    "pages-1.img": random.Random(1).randbytes(1 << 20),
    "config.json": b"{}",
}

Way = Callable[[Store, Path], Awaitable[object]]


def as_files(store: Store, target: Path) -> Awaitable[object]:
    return export(store, ID, target)


def as_archive(store: Store, target: Path) -> Awaitable[object]:
    return export_archives(ArchiveRequest(store, ID, target))


pytestmark = pytest.mark.parametrize("way", [as_files, as_archive])


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore("targets")


@pytest.fixture
def manifest(store: MemoryStore) -> Manifest:
    return write_checkpoint(store, IMAGES, chunk_size=1 << 17)


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file may become longer than 100,000 bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def files(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


def entries(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]


@pytest.mark.parametrize("what", ["file", "full directory", "link", "broken link"])
async def test_nothing_is_overwritten(
    store: MemoryStore, manifest: Manifest, tmp_path: Path, way: Way, what: str
) -> None:
    target = tmp_path / "out"
    if what == "full directory":
        target.mkdir()
        (target / "mine").write_bytes(b"mine")
    elif what == "file":
        target.write_bytes(b"mine")
    else:
        if what == "link":
            (tmp_path / "mine").write_bytes(b"mine")
        target.symlink_to("mine")
    before, links = files(tmp_path), sorted(entries(tmp_path))
    with pytest.raises(AlreadyExists):
        await way(store, target)
    assert (files(tmp_path), sorted(entries(tmp_path))) == (before, links)


async def test_no_checkpoint(store: MemoryStore, tmp_path: Path, way: Way) -> None:
    with pytest.raises(CheckpointNotFound):
        await way(store, tmp_path / "out")
    assert entries(tmp_path) == []


@pytest.mark.parametrize("chunk", [0, 5, -1])
async def test_a_damaged_checkpoint_leaves_nothing(
    store: MemoryStore, manifest: Manifest, tmp_path: Path, way: Way, chunk: int
) -> None:
    flip_payload(store, manifest, chunk % len(manifest.chunks))
    with pytest.raises(CheckpointCorrupt):
        await way(store, tmp_path / "out")
    assert entries(tmp_path) == []


async def test_directories_above_the_target_go_with_it(
    store: MemoryStore, manifest: Manifest, tmp_path: Path, way: Way
) -> None:
    await way(store, tmp_path / "kept" / "a" / "out")
    flip_payload(store, manifest, 0)
    with pytest.raises(CheckpointCorrupt):
        await way(store, tmp_path / "new" / "a" / "out")
    with pytest.raises(CheckpointCorrupt):
        await way(store, tmp_path / "kept" / "b" / "out")
    assert (entries(tmp_path), entries(tmp_path / "kept")) == (["kept"], ["a"])


async def test_a_place_that_cannot_be_written_to(
    store: MemoryStore, manifest: Manifest, tmp_path: Path, way: Way
) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreFailed, match="Not a directory"):
        await way(store, tmp_path / "file" / "out")


async def test_cancelling_leaves_nothing(manifest: Manifest, tmp_path: Path, way: Way) -> None:
    class Gated(MemoryStore):
        reached, gate = threading.Event(), threading.Event()

        def read(self, path: str, offset: int, length: int) -> Data:
            if "stream" in path:
                self.reached.set()
                assert self.gate.wait(3600)
            return super().read(path, offset, length)

    store = Gated("gated")
    write_checkpoint(store, IMAGES)
    task = asyncio.ensure_future(way(store, tmp_path / "out"))
    try:
        assert await asyncio.to_thread(store.reached.wait, PATIENCE)
        task.cancel()
        # Only a task that has seen its cancellation can be let on; it waits for its thread.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    finally:
        store.gate.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert entries(tmp_path) == []
    assert not [one for one in threading.enumerate() if one.name.startswith("prefetch")]


@pytest.mark.parametrize("size", [200_000, 2 << 20])
async def test_a_disk_that_takes_only_a_part(
    store: MemoryStore, tmp_path: Path, way: Way, size: int, small_files: None
) -> None:
    """It first writes less than it was given, and only then says why."""
    write_checkpoint(store, {**IMAGES, "pages-1.img": b"", "core-1.img": bytes(size)})
    with pytest.raises(StoreFailed, match="File too large"):
        await way(store, tmp_path / "out")
    assert entries(tmp_path) == []
