"""Trees out of a store: all that comes back, and every way in which it does not."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import tarfile
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from io import BytesIO
from pathlib import Path

import psutil
import pytest

from agent.errors import CheckpointCorrupt, MissingTool, RestoreFailed, StoreFailed
from agent.host import mounting, tar
from agent.host import run as runner
from agent.host.mountinfo import read
from agent.manifest import ROOTFS_DIFF, Image, Manifest
from agent.restore.trees import unpack
from agent.store.base import Store
from agent.store.memory import MemoryStore
from tests.checkpoints import flip_payload, write_checkpoint
from tests.fakes.slow_store import Gate, gated
from tests.fakes.stores import failing
from tests.tree_facts import acl, build_layer, facts_of
from tests.waiting import PATIENCE

pytestmark = pytest.mark.root


class Stored:
    """A checkpoint whose only image is a tar, and a directory for it to go to."""

    def __init__(self, content: bytes, directory: Path) -> None:
        self.store: Store = MemoryStore("trees")
        self.manifest: Manifest = write_checkpoint(self.store, {ROOTFS_DIFF: content})
        self.found = directory / "found"
        self.found.mkdir(exist_ok=True)
        self.log = directory / "log"

    async def unpack(self, lock: int | None = None) -> Path:
        image = self.manifest.members[0].image(ROOTFS_DIFF)
        assert isinstance(image, Image)
        await unpack(self.store, self.manifest, image, self.found, log=self.log, lock=lock)
        return self.found


def tarred(directory: Path) -> bytes:
    return subprocess.run(tar.create(directory), stdout=subprocess.PIPE, check=True).stdout


def files(*names: str, size: int = 0) -> bytes:
    """A tar of files of random bytes."""
    packed = BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = size
            archive.addfile(member, BytesIO(random.randbytes(size)))
    return packed.getvalue()


@pytest.fixture
def layer(tmp_path: Path) -> Path:
    """A directory with everything in it."""
    made = tmp_path / "layer"
    made.mkdir()
    build_layer(made)
    return made


@pytest.mark.parametrize("more", [0, 20 << 20], ids=["small", "streamed"])
async def test_all_that_a_layer_can_have(tmp_path: Path, layer: Path, more: int) -> None:
    (layer / "more").write_bytes(random.randbytes(more))
    stored = Stored(tarred(layer), tmp_path)
    inode = stored.found.stat().st_ino

    found = await stored.unpack()

    wanted = facts_of(layer)
    assert wanted["sparse"].sparse
    assert wanted["deep/absolute"].links == ("absolute", "deep/absolute")
    assert facts_of(found) == wanted
    assert found.stat().st_ino == inode


async def test_what_belongs_to_another_place_stays_there(tmp_path: Path) -> None:
    layer = tmp_path / "layer"
    layer.mkdir()
    bound = ("trusted.overlay.origin", "trusted.overlay.uuid", "security.selinux")
    for name in bound:
        os.setxattr(layer, name, b"here\0")
        (layer / "file").touch()
        os.setxattr(layer / "file", name, b"here\0")
    os.setxattr(layer / "file", "trusted.overlay.metacopy", b"")

    found = await Stored(tarred(layer), tmp_path).unpack()

    assert os.listxattr(found) == []
    assert os.listxattr(found / "file") == ["trusted.overlay.metacopy"]


async def test_what_is_there_already_stays_or_is_replaced(tmp_path: Path) -> None:
    stored = Stored(files("./folder/file", "./link", size=5), tmp_path)
    (stored.found / "folder").mkdir()
    (stored.found / "folder" / "other").write_text("stays")
    (stored.found / "folder" / "file").write_text("is replaced")
    (stored.found / "link").symlink_to("folder/other")

    found = await stored.unpack()

    assert (found / "folder" / "other").read_text() == "stays"
    assert (found / "folder" / "file").stat().st_size == 5
    assert not (found / "link").is_symlink()


async def test_thousands_of_files(tmp_path: Path) -> None:
    names = [f"./{number % 100}/{number}\n" for number in range(2_000)]
    found = await Stored(files(*names), tmp_path).unpack()
    assert len(list(found.glob("*/*\n"))) == len(names)


async def test_a_machine_without_tar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingTool, match="tar"):
        await Stored(files("./a"), tmp_path).unpack()


@asynccontextmanager
async def nothing_left(directory: Path) -> AsyncIterator[None]:
    """No child, thread, descriptor, or mount in the directory outlives the block."""

    def held() -> tuple[object, ...]:
        return (
            psutil.Process().children(),
            [one for one in threading.enumerate() if not one.name.startswith("asyncio")],
            len(os.listdir("/proc/self/fd")),
            [mount.line for mount in read() if os.fsencode(directory) in mount.point],
        )

    before = held()
    yield
    # The loop has to hear first that a child and its pipes have ended.
    with suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE):
            while held() != before:
                await asyncio.sleep(0.01)
    assert held() == before


NO_TARS = {
    "bytes": b"no tar at all" * 1000,
    "cut off": files("./a", "./b", size=100_000)[:150_000],
    "compressed": b"\x1f\x8b\x08" + bytes(5000),
}


@pytest.mark.parametrize("content", NO_TARS.values(), ids=list(NO_TARS))
async def test_no_tar(tmp_path: Path, content: bytes) -> None:
    stored = Stored(content, tmp_path)
    async with nothing_left(tmp_path):
        with pytest.raises(RestoreFailed, match=r"rootfs-diff\.tar into .*found.*tar: "):
            await stored.unpack()


async def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    stored = Stored(files("./a"), tmp_path)
    stored.found.rmdir()
    async with nothing_left(tmp_path):
        with pytest.raises(RestoreFailed, match="No such file or directory"):
            await stored.unpack()


async def test_damaged_while_it_is_read(tmp_path: Path) -> None:
    stored = Stored(files("./a", size=20 << 20), tmp_path)
    flip_payload(stored.store, stored.manifest, 15)
    async with nothing_left(tmp_path):
        with pytest.raises(CheckpointCorrupt):
            await stored.unpack()


async def test_a_store_that_fails_half_way(tmp_path: Path) -> None:
    stored = Stored(files("./a", size=20 << 20), tmp_path)
    stored.store = failing(stored.store, "read", 12)
    async with nothing_left(tmp_path):
        with pytest.raises(StoreFailed):
            await stored.unpack()


async def test_no_room(tmp_path: Path) -> None:
    stored = Stored(files("./a", size=4 << 20), tmp_path)
    with mounted(stored.found, b"tmpfs", b"size=1m"):
        async with nothing_left(tmp_path):
            with pytest.raises(RestoreFailed, match="no space left"):
                await stored.unpack()


UNWANTED = {
    "trusted.overlay.opaque": b"y",
    "system.posix_acl_access": acl(4711),
    "system.posix_acl_default": acl(4711),
}


@pytest.mark.parametrize("attribute", [*UNWANTED, None])
async def test_a_place_without_attributes(tmp_path: Path, attribute: str | None) -> None:
    """tar only warns of what it cannot set. Without the first one, deleted files come back."""
    layer = tmp_path / "layer"
    layer.mkdir()
    (layer / "websocket").mkdir()
    if attribute:
        os.setxattr(layer / "websocket", attribute, UNWANTED[attribute])
    stored = Stored(tarred(layer), tmp_path)
    with mounted(stored.found, b"ramfs", b""):
        async with nothing_left(tmp_path):
            if attribute is None:
                await stored.unpack()
                assert (stored.found / "websocket").is_dir()
                return
            with pytest.raises(RestoreFailed, match=r"Cannot set .*websocket"):
                await stored.unpack()


@contextmanager
def mounted(at: Path, kind: bytes, options: bytes) -> Iterator[None]:
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    mounting.mount(kind, os.fsencode(at), kind, 0, options)
    try:
        yield
    finally:
        mounting.unmount(os.fsencode(at))


async def test_given_up_while_the_store_is_waited_for(tmp_path: Path) -> None:
    gate = Gate()
    stored = Stored(files("./a", size=20 << 20), tmp_path)
    stored.store = gated(stored.store, "read", gate)
    async with nothing_left(tmp_path):
        with gate:
            unpacking = asyncio.create_task(stored.unpack())
            assert await asyncio.to_thread(gate.reached.wait, PATIENCE)
            unpacking.cancel()
            # Reading is what cannot be interrupted: whoever gives up waits for what was begun.
            await asyncio.sleep(0.2)
            assert not unpacking.done()
        with pytest.raises(asyncio.CancelledError):
            await unpacking


async def test_given_up_while_tar_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tar that does not read, and is deaf: it takes a signal that nobody can ignore."""
    program = tmp_path / "bin" / "tar"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\ntrap '' TERM\n: > /directory/begun\nwhile :; do :; done\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(runner, "TERM_GRACE", 0.2)
    stored = Stored(files("./a", size=20 << 20), tmp_path)
    lock = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    async with nothing_left(tmp_path):
        unpacking = asyncio.create_task(stored.unpack(lock))
        async with asyncio.timeout(PATIENCE):
            while not (stored.found / "begun").exists():
                await asyncio.sleep(0.01)
        children = psutil.Process().children()
        (child,) = [each for each in children if any("tar" in word for word in each.cmdline())]
        assert os.readlink(f"/proc/{child.pid}/fd/{lock}") == str(tmp_path)
        unpacking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await unpacking
    os.close(lock)
