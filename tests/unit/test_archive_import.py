"""Import: an archive becomes a checkpoint, whole or not at all."""

from __future__ import annotations

import asyncio
import gzip
import io
import os
import struct
import tarfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import zstandard
from rich.console import Console

from agent.archive.take import ImportRequest, import_archive
from agent.chunks import read_manifest
from agent.cli import catalog_tables
from agent.errors import InvalidArgument, StoreFailed
from agent.manifest import Manifest
from agent.report import Update
from agent.store.base import Store
from agent.store.memory import MemoryStore
from agent.verify import verify
from tests.archives import (
    FILES,
    archive,
    config,
    content,
    entries,
    imported,
    member,
    nothing_left,
    spec,
    tar,
)
from tests.fakes.stores import failing
from tests.pipelines import read_images, threads
from tests.waiting import PATIENCE

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
    try:
        os.write(writer, archive()[:2000])
        async with asyncio.timeout(PATIENCE):
            while not any(thread.startswith("stream-") for thread in threads()):
                await asyncio.sleep(0.01)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
    finally:
        os.close(writer)
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


@pytest.mark.parametrize(
    "said",
    ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59-14:00", "2024-01-01T00:00:00", "soon", 7, None],
)
async def test_a_time_that_says_nothing(store: MemoryStore, tmp_path: Path, said: object) -> None:
    before = datetime.now(UTC) - timedelta(milliseconds=1)
    data = archive(**{"config.dump": config(checkpointedTime=said)})
    result = await imported(store, data, tmp_path)
    found = datetime.fromisoformat(read_manifest(store, result.checkpoint_id).created_at)
    assert before <= found <= datetime.now(UTC)


async def test_a_name_that_a_manifest_cannot_hold(tmp_path: Path) -> None:
    request = ImportRequest(str(tmp_path / "none"), MemoryStore("import"), name="caf\udce9")
    with pytest.raises(InvalidArgument, match=r"name.*is not UTF-8"):
        await import_archive(request, state_dir=tmp_path)
