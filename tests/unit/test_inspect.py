"""Inspection of checkpoints whose images are missing, strange, or cannot be decoded."""

from __future__ import annotations

import struct
import sys

import pytest

from agent.chunks import MAX_SMALL_IMAGE
from agent.errors import CheckpointCorrupt, CheckpointNotFound, MissingTool
from agent.inspect import inspect
from agent.store.base import Data
from agent.store.memory import MemoryStore
from tests.checkpoints import ID, write_checkpoint

pb = pytest.importorskip("pycriu.images.pb", reason="pycriu comes with CRIU")


def image(*messages: object) -> bytes:
    """An image of CRIU: two magics, then messages behind their lengths."""
    bodies = [message.SerializeToString() for message in messages]  # type: ignore[attr-defined]
    return bytes(8) + b"".join(struct.pack("=I", len(body)) + body for body in bodies)


def core(state: int, name: str) -> bytes:
    entry = pb.core_entry(mtype=1)
    task = pb.task_core_entry(
        task_state=state, exit_code=0, personality=0, flags=0, blk_sigset=0, comm=name
    )
    entry.tc.CopyFrom(task)
    return image(entry)


TREE = image(
    pb.pstree_entry(pid=1, ppid=0, pgid=1, sid=1, threads=[1, 5, 6]),
    pb.pstree_entry(pid=7, ppid=1, pgid=1, sid=1, threads=[7]),
)
FOWN = pb.fown_entry(uid=0, euid=0, signum=0, pid_type=0, pid=0)
MM_FIELDS = [field.name for field in pb.mm_entry.DESCRIPTOR.fields if field.is_required]
FILES = [pb.fdinfo_entry(id=1, flags=0, type=kind, fd=kind) for kind in (1, 1, 2, 11)]
IMAGES = {
    "pstree.img": TREE,
    "core-1.img": core(1, "server"),
    "core-7.img": core(6, "gone"),
    "ids-1.img": image(pb.task_kobj_ids_entry(vm_id=1, files_id=4, fs_id=1, sighand_id=1)),
    "fdinfo-4.img": image(*FILES),
    "pagemap-1.img": image(pb.pagemap_head(pages_id=3)),
    "pagemap-shmem-9.img": image(pb.pagemap_head(pages_id=8)),
    "pages-3.img": bytes(3 << 20),
    "pages-8.img": bytes(1 << 20),
    "config.json": b"{}",
}


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore("inspect")


def test_processes_states_files_and_memory(store: MemoryStore) -> None:
    manifest = write_checkpoint(store, IMAGES)
    found = inspect(store, ID)
    member = found.members[0]
    first, second = member.processes
    assert (first.pid, first.ppid, first.name, first.state) == (1, 0, "server", "running")
    assert (first.threads, first.memory_saved) == (3, 3 << 20)
    assert first.open_files == {"reg": 2, "pipe": 1, "tty": 1}
    assert (second.ppid, second.name, second.state) == (1, "gone", "zombie")
    assert (second.memory_mapped, second.memory_saved, second.open_files) == (0, 0, {})
    assert (second.executable, member.criu_stats) == (None, {})
    assert member.shared_memory == 1 << 20
    assert {one.name: one.size for one in member.images} == {
        name: len(data) for name, data in IMAGES.items()
    }
    assert found.bytes_stored == manifest.bytes_stored
    assert found.host["criu"] == "4.1.1"


def test_pages_are_never_read() -> None:
    class Watching(MemoryStore):
        read_bytes = 0

        def read(self, path: str, offset: int, length: int) -> Data:
            self.read_bytes += length
            return super().read(path, offset, length)

    store = Watching("watching")
    manifest = write_checkpoint(store, IMAGES, compression="none")
    store.read_bytes = 0
    inspect(store, ID)
    small = sum(chunk.raw for chunk in manifest.chunks if chunk.raw < 1 << 20)
    assert store.read_bytes < small + store.size(f"{ID}/manifest.json") + 100


def test_no_checkpoint(store: MemoryStore) -> None:
    with pytest.raises(CheckpointNotFound):
        inspect(store, ID)


@pytest.mark.parametrize("cut", [9, 13, -1])
def test_an_image_that_ends_too_early(store: MemoryStore, cut: int) -> None:
    write_checkpoint(store, {"pstree.img": TREE[:cut]})
    with pytest.raises(CheckpointCorrupt, match=r"pstree\.img of c0 does not decode"):
        inspect(store, ID)


def test_an_image_that_is_something_else(store: MemoryStore) -> None:
    write_checkpoint(store, {"pstree.img": bytes(8) + b"\x04\0\0\0\xff\xff\xff\xff"})
    with pytest.raises(CheckpointCorrupt, match=r"pstree\.img of c0 does not decode"):
        inspect(store, ID)


def test_more_files_than_are_ever_held_of_other_images(store: MemoryStore) -> None:
    """So many that they do not fit into one chunk are no damage."""
    files = [
        pb.file_entry(
            type=1,
            id=number,
            reg=pb.reg_file_entry(id=number, flags=0, pos=0, fown=FOWN, name="/" + "x" * 4000),
        )
        for number in range(1, 5001)
    ]
    memory = pb.mm_entry(**(dict.fromkeys(MM_FIELDS, 0) | {"exe_file_id": 5000}))
    images = {**IMAGES, "files.img": image(*files), "mm-1.img": image(memory)}
    assert len(images["files.img"]) > MAX_SMALL_IMAGE
    write_checkpoint(store, images)
    [first, _] = inspect(store, ID).members[0].processes
    assert first.executable == "/" + "x" * 4000


def test_without_pycriu(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    write_checkpoint(store, IMAGES)
    monkeypatch.setitem(sys.modules, "pycriu.images", None)
    with pytest.raises(MissingTool, match="pycriu"):
        inspect(store, ID)
