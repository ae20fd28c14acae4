"""Archives that are none, are damaged or mean harm: refused, soon, and nothing is left of them."""

from __future__ import annotations

import asyncio
import gzip
import tarfile
import time
from pathlib import Path

import pytest
import zstandard

from agent.archive import blocks, compression, layer, read
from agent.archive.take import ImportRequest, import_archive
from agent.errors import CheckpointCorrupt
from agent.store.memory import MemoryStore
from tests.archives import FILES, archive, config, imported, member, nothing_left, tar
from tests.waiting import PATIENCE


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore("hostile")


def with_layer(data: bytes) -> bytes:
    return tar([*FILES.items(), ("rootfs-diff.tar", data)])


HOSTILE = {
    "no archive": (b"hello" * 1000, "no tar"),
    "nothing": (b"", "cut off"),
    "an empty tar": (tar([]), "no checkpoint/inventory.img"),
    "no config.dump": (tar((n, d) for n, d in FILES.items() if n != "config.dump"), "config.dump"),
    "no spec.dump": (tar((n, d) for n, d in FILES.items() if n != "spec.dump"), "spec.dump"),
    "cut off": (archive()[:-30_000], "cut off"),
    "bzip2": (b"BZh91AY&SY", "bzip2"),
    "gzip cut off": (gzip.compress(archive())[:-20], "damaged|cut off"),
    "zstd cut off": (zstandard.compress(archive())[:-20], "damaged|cut off"),
    "an absolute name": (tar([*FILES.items(), ("/etc/cron.d/x", b"")]), "a file is called"),
    "a name that leads out": (tar([*FILES.items(), ("checkpoint/../../x", b"")]), "is called"),
    "an image called otherwise": (tar([*FILES.items(), ("checkpoint/-x.img", b"")]), "is called"),
    "a volume called otherwise": (tar([*FILES.items(), ("volumes/a b.tar", b"")]), "is called"),
    "twice": (tar([*FILES.items(), ("./checkpoint//pstree.img", b"2")]), "there twice"),
    "two volumes": (
        tar([*FILES.items(), ("devshm-checkpoint.tar", tar([])), ("volumes/shm.tar", tar([]))]),
        "a volume is called",
    ),
    "a link": (
        tar([(member("checkpoint", tarfile.SYMTYPE, linkname="/etc"), b""), *FILES.items()]),
        "is a link",
    ),
    "a hard link": (
        tar([*FILES.items(), (member("ctr.log", tarfile.LNKTYPE, linkname="spec.dump"), b"")]),
        "is a link",
    ),
    "a device": (tar([*FILES.items(), (member("x", tarfile.BLKTYPE), b"")]), "a device"),
    "a pre-checkpoint": (tar([("pre-checkpoint/inventory.img", b"")]), "pre-checkpoint"),
    "config.dump of no JSON": (archive(**{"config.dump": b"{"}), "config.dump is no JSON"),
    "spec.dump of a list": (archive(**{"spec.dump": b"[]"}), "spec.dump is no JSON object"),
    "nested JSON": (archive(**{"spec.dump": b'{"a":' * 200_000}), "spec.dump is no JSON"),
    "a huge config.dump": (archive(**{"config.dump": b" " * (read.MAX_JSON + 1)}), "more than"),
    "a name with a path": (archive(**{"config.dump": config(name="../x")}), "is called"),
    "no name": (archive(**{"config.dump": config(name=None)}), "is called"),
    "deleted.files of numbers": (tar([*FILES.items(), ("deleted.files", b"[1]")]), "no list"),
    "deleted paths that lead out": (
        tar([*FILES.items(), ("deleted.files", b'["/../../etc"]')]),
        "a file is called",
    ),
    "a layer that leads out": (with_layer(tar([("../x", b"")])), "a file is called"),
    "a layer whose marks lead out": (with_layer(tar([("a/.wh...", b"")])), "a file is called"),
    "a layer that is none": (with_layer(b"x" * 999), "no tar"),
    "a layer whose checksum is wrong": (
        with_layer(gzip.compress(tar([("x", b"")]))[:-8] + bytes(8)),
        "the compressed data is damaged",
    ),
    "a long name": (tar([*FILES.items(), ("a/" * 2049, b"")]), "more than 4096 bytes"),
    "a volume that leads out": (
        tar([*FILES.items(), ("volumes/v.tar", tar([("/x", b"")]))]),
        "a file is called",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("data", "reason"), HOSTILE.values(), ids=HOSTILE)
async def test_what_is_refused(
    store: MemoryStore, tmp_path: Path, data: bytes, reason: str
) -> None:
    with pytest.raises(CheckpointCorrupt, match=reason):
        await imported(store, data, tmp_path)
    nothing_left(store, tmp_path)


def huge(name: bytes, kind: bytes, size: int) -> bytes:
    return blocks.new_entry(name, kind, size=size)


@pytest.mark.parametrize("kind", [b"x", b"L", b"K"])
async def test_memory_is_not_taken_for_a_name(
    store: MemoryStore, tmp_path: Path, kind: bytes
) -> None:
    """Four gigabytes of zeros would be a few bytes of zstd."""
    with pytest.raises(CheckpointCorrupt, match="names and attributes"):
        await imported(store, huge(b"x", kind, 1 << 32) + bytes(1 << 20), tmp_path)
    nothing_left(store, tmp_path)


async def test_an_archive_without_an_end(
    store: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read, "MAX_BYTES", 32 << 20)
    bomb = zstandard.compress(huge(b"checkpoint/pages-1.img", b"0", 1 << 50) + bytes(64 << 20))
    with pytest.raises(CheckpointCorrupt, match="unpacks to more"):
        await imported(store, bomb, tmp_path)
    nothing_left(store, tmp_path)


async def test_a_bomb_behind_the_end(
    store: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read, "MAX_TAIL", 1 << 20)
    with pytest.raises(CheckpointCorrupt, match="1048576 bytes follow its end"):
        await imported(store, zstandard.compress(archive() + bytes(4 << 20)), tmp_path)
    nothing_left(store, tmp_path)


async def test_too_many_files(
    store: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read, "MAX_FILES", 4)
    with pytest.raises(CheckpointCorrupt, match="more than 4 files"):
        await imported(store, archive(), tmp_path)
    nothing_left(store, tmp_path)


async def test_names_that_are_too_long_together(
    store: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read, "MAX_NAMES", 10_000)
    names = [f"{number}" + "a" * 4000 for number in range(3)]
    with pytest.raises(CheckpointCorrupt, match="more than 10000 bytes"):
        await imported(store, tar([*FILES.items(), *((name, b"") for name in names)]), tmp_path)
    nothing_left(store, tmp_path)


async def test_time_is_not_taken_for_attributes(store: MemoryStore, tmp_path: Path) -> None:
    """A million of them in one header are a few bytes of zstd."""

    async def seconds(attributes: int) -> float:
        """Of the processor, which others may want too: the least of some imports."""
        records = b"4 =\n" * attributes
        head = huge(b"x", b"x", len(records) - 2048) + records[2048:]
        data = zstandard.compress(head + archive())
        found = []
        for _ in range(3):
            begin = time.process_time()
            await imported(store, data, tmp_path)
            found.append(time.process_time() - begin)
        return min(found)

    # Sixteen times as many when the rest was copied for each of them: two minutes for a million.
    assert await seconds(1 << 18) < 8 * await seconds(1 << 16)


async def test_cancelling_is_noticed_in_what_is_skipped(
    store: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A little zstd may say for hours what nobody takes."""
    # All of it at once: where more is read, it is noticed too. Then there is a minute left of it.
    monkeypatch.setattr(compression, "_READ_SIZE", 64 << 20)
    path = tmp_path / "archive"
    zeros = zstandard.compress(bytes(64 << 20))
    path.write_bytes(zstandard.compress(huge(b"ctr.log", b"0", 1 << 40)) + zeros * (1 << 14))
    assert path.stat().st_size < 64 << 20
    request = ImportRequest(str(path), store)
    work = asyncio.create_task(import_archive(request, state_dir=tmp_path / "state"))
    await asyncio.sleep(0.5)
    work.cancel()
    await asyncio.wait({work}, timeout=PATIENCE / 2)
    assert work.cancelled()
    nothing_left(store, tmp_path)


async def test_too_many_directories_in_a_layer(
    store: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layer, "_MOST_MEMORY", 4 << 20)
    # A megabyte in the archive, and a gigabyte of the paths of its directories.
    names = [f"{number}/" + "a/" * 2000 for number in range(250)]
    data = with_layer(tar((name + "b", b"") for name in names))
    with pytest.raises(CheckpointCorrupt, match="directories and marks take more than 4194304"):
        await imported(store, data, tmp_path)
    nothing_left(store, tmp_path)


@pytest.mark.parametrize("at", range(4))
async def test_a_flipped_bit_in_a_header(store: MemoryStore, tmp_path: Path, at: int) -> None:
    data = bytearray(archive())
    data[at * 37] ^= 4
    with pytest.raises(CheckpointCorrupt, match="no tar, or damaged"):
        await imported(store, bytes(data), tmp_path)
    nothing_left(store, tmp_path)
