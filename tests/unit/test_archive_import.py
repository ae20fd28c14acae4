"""Import: what is an archive becomes a checkpoint, what is none or means harm leaves nothing."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import os
import struct
import tarfile
from pathlib import Path

import pytest
import zstandard
from rich.console import Console

from agent.archive import blocks, layer, read
from agent.archive.take import ImportRequest, ImportResult, import_archive
from agent.chunks import read_manifest
from agent.cli import catalog_tables
from agent.errors import CheckpointCorrupt, InvalidArgument, StoreFailed
from agent.manifest import Manifest
from agent.report import Update
from agent.store.base import Store
from agent.store.memory import MemoryStore
from agent.verify import verify
from tests.archives import CONFIG, FILES, SPEC, archive, content, entries, member, tar
from tests.fakes.stores import failing
from tests.pipelines import read_images, threads

# As CRIU writes it: frozen 300 microseconds, freezing 100.
_DUMP = bytes([0x08, 100, 0x10, 0xAC, 0x02])
_STATS = bytes([0x0A, len(_DUMP)]) + _DUMP
STATS = struct.pack("=III", 0x57093306, 0x54534241, len(_STATS)) + _STATS
POD = {
    "io.kubernetes.cri.container-type": "container",
    "io.kubernetes.cri.container-name": "app",
    "io.kubernetes.cri.sandbox-uid": "1-2",
    "io.kubernetes.cri.sandbox-namespace": "default",
    "io.kubernetes.cri.sandbox-name": "web",
    "io.kubernetes.cri.sandbox-id": "3",
}


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore("import")


async def imported(store: Store, data: bytes, directory: Path, **more: str) -> ImportResult:
    path = directory / "archive"
    path.write_bytes(data)
    request = ImportRequest(str(path), store, **more)  # type: ignore[arg-type]
    return await import_archive(request, state_dir=directory / "state")


def spec(**changed: object) -> bytes:
    return json.dumps({**SPEC, **changed}).encode()


def config(**changed: object) -> bytes:
    return json.dumps({**CONFIG, **changed}).encode()


def nothing_left(store: MemoryStore, directory: Path) -> None:
    assert store.list("") == []
    assert os.listdir(directory / "state" / "operations") == []
    assert threads() == []


def images(store: Store, manifest: Manifest) -> dict[str, bytes]:
    return read_images(store, manifest)


async def test_an_archive_becomes_a_checkpoint(store: MemoryStore, tmp_path: Path) -> None:
    result = await imported(store, archive(), tmp_path, name="for people")
    manifest = read_manifest(store, result.checkpoint_id)
    assert images(store, manifest) == {
        "inventory.img": b"inventory",
        "pstree.img": b"pstree",
        "pages-1.img": FILES["checkpoint/pages-1.img"],
        "config.json": FILES["spec.dump"],
    }
    [container] = manifest.members
    assert (container.name, container.target, container.kind) == ("counter", "c" * 64, "runc")
    assert (manifest.kind, manifest.name, manifest.pod) == ("simple", "for people", None)
    assert (manifest.host.name, manifest.host.kernel, manifest.host.runc) == ("", "unknown", None)
    assert (container.pid, container.bundle, container.terminal) == (1, None, False)
    assert result.containers == ["counter"]
    await verify(store, result.checkpoint_id)
    assert os.listdir(tmp_path / "state" / "operations") == []


@pytest.mark.parametrize("form", ["gzip", "zstd"])
async def test_compressed(store: MemoryStore, tmp_path: Path, form: str) -> None:
    plain = archive()
    # In two pieces, as those do that compress in parallel.
    halves = (plain[:700], plain[700:])
    compress = gzip.compress if form == "gzip" else zstandard.ZstdCompressor().compress
    result = await imported(store, b"".join(compress(half) for half in halves), tmp_path)
    assert len(images(store, read_manifest(store, result.checkpoint_id))) == 4


async def test_all_that_an_engine_puts_in(store: MemoryStore, tmp_path: Path) -> None:
    files = dict(FILES) | {
        "spec.dump": spec(annotations=POD, process={"terminal": True}),
        "config.dump": config(checkpointedTime="2024-05-06T07:08:09.123456789+02:00"),
        "deleted.files": b'["/etc/gone"]',
        "rootfs-diff.tar": tar([("new", b"1")]),
        "stats-dump": STATS,
        "devshm-checkpoint.tar": tar([("./queue", b"2")]),
        "volumes/data.tar": tar([("./file", b"3")]),
        "checkpoint/descriptors.json": b"[]",
        "checkpoint/tcp-stream-1f.img": b"4",
        "checkpoint/dump.log": b"5",
        "ctr.log": b"6",
        "artifacts/x": b"7",
        "io.kubernetes.cri-o.LogPath": b"8",
    }
    folders = [(member(name, tarfile.DIRTYPE), b"") for name in ("checkpoint", "volumes")]
    result = await imported(store, tar([*folders, *files.items()]), tmp_path)
    manifest = read_manifest(store, result.checkpoint_id)
    [container] = manifest.members
    assert (container.name, container.terminal) == ("app", True)
    assert container.options.tcp_established
    assert manifest.pod is not None
    assert (manifest.pod.uid, manifest.pod.namespace, manifest.pod.name) == (
        "1-2",
        "default",
        "web",
    )
    assert manifest.kind == "rootfs"
    assert manifest.frozen_seconds == 0.0004
    assert manifest.created_at == "2024-05-06T05:08:09.123+00:00"
    found = images(store, manifest)
    assert found["descriptors.json"] == b"[]"
    assert sorted(entries(found["rootfs-diff.tar"])) == ["./etc/gone", "new"]
    assert [(volume.name, volume.medium) for volume in manifest.volumes] == [
        ("shm", "shm"), ("data", "empty-dir"),
    ]  # fmt: skip
    assert sorted(result.left_out) == [
        "artifacts/x", "checkpoint/dump.log", "ctr.log", "io.kubernetes.cri-o.LogPath",
    ]  # fmt: skip


async def test_what_is_deleted_without_anything_new(store: MemoryStore, tmp_path: Path) -> None:
    files = {**FILES, "deleted.files": b'["/a"]'}
    result = await imported(store, tar(files.items()), tmp_path)
    found = images(store, read_manifest(store, result.checkpoint_id))
    assert list(entries(found["rootfs-diff.tar"])) == ["./a"]


async def test_a_compressed_layer_as_containerd_has_it(store: MemoryStore, tmp_path: Path) -> None:
    diff = gzip.compress(tar([("etc/.wh.gone", b""), ("etc/new", b"1")]))
    result = await imported(store, tar({**FILES, "rootfs-diff.tar": diff}.items()), tmp_path)
    found = images(store, read_manifest(store, result.checkpoint_id))
    assert sorted(entries(found["rootfs-diff.tar"])) == ["./etc/gone", "etc/new"]


async def test_from_a_pipe_that_is_cancelled(store: MemoryStore, tmp_path: Path) -> None:
    """Nobody writes any more, and nobody closes it."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    seen: list[Update] = []
    request = ImportRequest(str(pipe), store)
    work = asyncio.create_task(
        import_archive(request, state_dir=tmp_path / "state", observer=seen.append)
    )
    writer = os.open(pipe, os.O_RDWR)
    os.write(writer, archive()[:2000])
    while not any(thread.startswith("stream-") for thread in threads()):
        await asyncio.sleep(0.01)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    os.close(writer)
    nothing_left(store, tmp_path)


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
    "a layer that leads out": (
        tar([*FILES.items(), ("rootfs-diff.tar", tar([("../x", b"")]))]),
        "a file is called",
    ),
    "a layer that is none": (tar([*FILES.items(), ("rootfs-diff.tar", b"x" * 999)]), "no tar"),
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
    with pytest.raises(CheckpointCorrupt, match="unpacks to more"):
        await imported(store, zstandard.compress(archive() + bytes(4 << 20)), tmp_path)
    nothing_left(store, tmp_path)


async def test_too_many_files(
    store: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read, "MAX_FILES", 4)
    with pytest.raises(CheckpointCorrupt, match="more than 4 files"):
        await imported(store, archive(), tmp_path)
    nothing_left(store, tmp_path)


async def test_too_many_directories_in_a_layer(
    store: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layer, "_MOST", 10)
    data = tar([*FILES.items(), ("rootfs-diff.tar", tar([("a/" * 20 + "b", b"")]))])
    with pytest.raises(CheckpointCorrupt, match="more than 10 directories"):
        await imported(store, data, tmp_path)
    nothing_left(store, tmp_path)


@pytest.mark.parametrize("at", range(4))
async def test_a_flipped_bit_in_a_header(store: MemoryStore, tmp_path: Path, at: int) -> None:
    data = bytearray(archive())
    data[at * 37] ^= 4
    with pytest.raises(CheckpointCorrupt, match="no tar, or damaged"):
        await imported(store, bytes(data), tmp_path)
    nothing_left(store, tmp_path)


async def test_what_is_said_about_it(store: MemoryStore, tmp_path: Path) -> None:
    files = {**FILES, "\x1b[31mctr.log": b""}
    result = await imported(store, tar(files.items()), tmp_path, name="nightly")
    console = Console(file=io.StringIO(), width=200)
    console.print(catalog_tables.imported(result))
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert all(word in said for word in ("Imported", result.path, "nightly", "counter", "ctr.log"))
    assert "\x1b" not in said


async def test_no_such_file(store: MemoryStore, tmp_path: Path) -> None:
    request = ImportRequest(str(tmp_path / "none"), store)
    with pytest.raises(InvalidArgument, match="No such file"):
        await import_archive(request, state_dir=tmp_path / "state")


async def test_a_directory(store: MemoryStore, tmp_path: Path) -> None:
    (tmp_path / "state" / "operations").mkdir(parents=True)
    request = ImportRequest(str(tmp_path), store)
    with pytest.raises(StoreFailed, match="Is a directory"):
        await import_archive(request, state_dir=tmp_path / "state")
    nothing_left(store, tmp_path)


async def test_a_store_that_fails(store: MemoryStore, tmp_path: Path) -> None:
    with pytest.raises(StoreFailed):
        await imported(failing(store, "write", 2), archive(), tmp_path)
    nothing_left(store, tmp_path)


async def test_content_is_what_tarfile_reads(store: MemoryStore, tmp_path: Path) -> None:
    """What comes in is what another reader finds in the same archive."""
    data = archive(**{"checkpoint/pages-1.img": os.urandom(5 << 20)})
    result = await imported(store, data, tmp_path)
    found = images(store, read_manifest(store, result.checkpoint_id))
    expected = content(data)
    for name in ("inventory.img", "pstree.img", "pages-1.img"):
        assert found[name] == expected[f"checkpoint/{name}"]
