"""The real CRIU restores from the image server, and fails when the checkpoint is damaged."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.errors import CheckpointCorrupt
from agent.export import export
from agent.inspect import inspect
from agent.manifest import Manifest
from agent.serve.prefetch import Prefetch
from agent.serve.server import ImageServer
from agent.store.memory import MemoryStore
from tests.checkpoints import ID, flip_payload, write_checkpoint
from tests.criu_processes import Tree, restore, tree
from tests.waiting import eventually

pytestmark = [
    pytest.mark.criu,
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="CRIU needs root"),
]


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore("criu")


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Tree]:
    with tree(tmp_path / "told") as started:
        yield started


@contextmanager
def serving(store: MemoryStore, manifest: Manifest, images_dir: Path) -> Iterator[ImageServer]:
    images_dir.mkdir()
    member = manifest.members[0]
    prefetch = Prefetch(store, manifest, member.images)
    server = ImageServer(images_dir, member, prefetch)
    prefetch.start()
    server.start()
    try:
        yield server
    finally:
        server.close()


def written(store: MemoryStore, running: Tree, tmp_path: Path) -> Manifest:
    return write_checkpoint(store, running.images(tmp_path / "plain"))


def test_a_process_goes_on_where_it_was(store: MemoryStore, running: Tree, tmp_path: Path) -> None:
    manifest = written(store, running, tmp_path)
    with serving(store, manifest, tmp_path / "images") as server:
        assert restore(tmp_path / "images", "--stream") == 0
        server.wait()
    assert running.memory() == running.digests
    pages = manifest.members[0].image("pages-1.img")
    assert pages is not None
    assert pages.size > 16 << 20
    assert server.bytes_served > pages.size
    assert [path.name for path in (tmp_path / "images").glob("*.img")] == []


def test_processes_that_read_their_pages_at_the_same_time(
    store: MemoryStore, tmp_path: Path
) -> None:
    with tree(tmp_path / "told", mebibytes=6, children=3) as running:
        manifest = written(store, running, tmp_path)
        with serving(store, manifest, tmp_path / "images") as server:
            assert restore(tmp_path / "images", "--stream") == 0
            server.wait()
        assert running.memory() == running.digests


@pytest.mark.parametrize("damaged", [0, -1], ids=["small images", "last chunk of pages"])
def test_a_damaged_checkpoint_never_becomes_a_process(
    store: MemoryStore, running: Tree, tmp_path: Path, damaged: int
) -> None:
    manifest = written(store, running, tmp_path)
    flip_payload(store, manifest, damaged % len(manifest.chunks))
    with serving(store, manifest, tmp_path / "images") as server:
        assert restore(tmp_path / "images", "--stream") != 0
        with pytest.raises(CheckpointCorrupt, match=r"digest|Zstandard"):
            server.check()
    eventually(lambda: not running.is_alive())


async def test_an_exported_directory_restores_with_criu_alone(
    store: MemoryStore, running: Tree, tmp_path: Path
) -> None:
    written(store, running, tmp_path)
    await export(store, ID, tmp_path / "exported")
    assert restore(tmp_path / "exported") == 0
    assert running.memory() == running.digests


def test_inspect_tells_of_processes_from_the_images_alone(
    store: MemoryStore, tmp_path: Path
) -> None:
    with tree(tmp_path / "told", mebibytes=4, children=1) as running:
        written(store, running, tmp_path)
    member = inspect(store, ID).members[0]
    assert {str(process.pid) for process in member.processes} == running.digests.keys()
    parent, child = member.processes
    assert (parent.pid, child.ppid) == (running.pid, running.pid)
    assert parent.name.startswith("python")
    assert (parent.executable or "").rpartition("/")[2].startswith("python")
    assert (parent.state, parent.threads) == ("running", 1)
    assert 4 << 20 <= parent.memory_saved <= parent.memory_mapped
    assert parent.open_files == {"reg": 3}
    assert member.criu_stats["frozen_time"] > 0
