"""Export: ordinary files, all of them or none."""

from __future__ import annotations

import random
import stat
from pathlib import Path

import pytest

from agent.errors import AlreadyExists, CheckpointCorrupt, StoreFailed
from agent.export import export, write_images
from agent.manifest import MANIFEST, Manifest, Volume, to_bytes
from agent.report import Update
from agent.store.base import Data
from agent.store.memory import MemoryStore
from tests.checkpoints import ID, replace, write_checkpoint

IMAGES = {
    "inventory.img": b"inventory",
    "pages-1.img": random.Random(1).randbytes(1 << 20),
    "descriptors.json": b"[]",
    "config.json": b"{}",
    "stats-dump": b"stats",
}


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore("export")


@pytest.fixture
def manifest(store: MemoryStore) -> Manifest:
    return write_checkpoint(store, IMAGES, chunk_size=1 << 17)


def files(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


def entries(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]


async def test_every_image_becomes_a_file(
    store: MemoryStore, manifest: Manifest, tmp_path: Path
) -> None:
    seen: list[Update] = []
    result = await export(store, ID, tmp_path / "new" / "out", observer=seen.append)
    assert files(tmp_path / "new" / "out") == IMAGES
    assert result.directories == [str(tmp_path / "new" / "out")]
    assert (result.images, result.bytes_raw) == (5, manifest.bytes_raw)
    assert seen[-1].bytes_raw == seen[-1].bytes_total == manifest.bytes_raw
    assert entries(tmp_path / "new") == ["out"]


async def test_only_the_owner_can_read_them(
    store: MemoryStore, manifest: Manifest, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    await export(store, ID, out)
    assert stat.S_IMODE(out.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in out.iterdir()} == {0o600}


async def test_members_get_directories_of_their_own(store: MemoryStore, tmp_path: Path) -> None:
    write_checkpoint(store, {"core-1.img": b"1"}, {"core-1.img": b"2"})
    result = await export(store, ID, tmp_path / "out")
    assert files(tmp_path / "out") == {"c0/core-1.img": b"1", "c1/core-1.img": b"2"}
    assert result.directories == [str(tmp_path / "out" / "c0"), str(tmp_path / "out" / "c1")]


@pytest.mark.parametrize("name", ["..", "", ".", "a/b", "/etc", "c1", "nul\0"])
async def test_members_that_cannot_be_told_apart_or_lead_elsewhere(
    store: MemoryStore, tmp_path: Path, name: str
) -> None:
    manifest = write_checkpoint(store, {"core-1.img": b"1"}, {"core-1.img": b"2"})
    first, second = manifest.members
    members = [first.model_copy(update={"name": name}), second]
    replace(store, f"{ID}/{MANIFEST}", to_bytes(manifest.model_copy(update={"members": members})))
    with pytest.raises(CheckpointCorrupt, match="invalid manifest"):
        await export(store, ID, tmp_path / "out")
    assert entries(tmp_path) == []


async def test_volumes_lie_beside_the_members(store: MemoryStore, tmp_path: Path) -> None:
    manifest = write_checkpoint(store, {"pages-1.img": b"1" * 9}, {"core-1.img": b"2"})
    [tar] = [image for image in manifest.members[0].images if image.name == "pages-1.img"]
    volume = Volume(name="data", medium="shm", image=tar.model_copy(update={"kind": "volume"}))
    changed = manifest.model_copy(update={"volumes": [volume]})
    replace(store, f"{ID}/{MANIFEST}", to_bytes(changed))

    result = await export(store, ID, tmp_path / "out")

    assert files(tmp_path / "out") == {
        "c0/pages-1.img": b"1" * 9,
        "c1/core-1.img": b"2",
        "volumes/data.tar": b"1" * 9,
    }
    assert (result.images, result.bytes_raw) == (3, 9 + 1 + 9)


async def test_an_empty_directory_is_as_good_as_none(
    store: MemoryStore, manifest: Manifest, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    await export(store, ID, tmp_path / "out")
    assert files(tmp_path / "out") == IMAGES


async def test_a_directory_filled_meanwhile_is_left_alone(
    manifest: Manifest, tmp_path: Path
) -> None:
    out = tmp_path / "out"

    class Interfering(MemoryStore):
        def read(self, path: str, offset: int, length: int) -> Data:
            if "stream" in path:
                out.mkdir(exist_ok=True)
                (out / "mine").write_bytes(b"mine")
            return super().read(path, offset, length)

    store = Interfering("interfering")
    write_checkpoint(store, IMAGES)
    with pytest.raises(AlreadyExists):
        await export(store, ID, out)
    assert files(tmp_path) == {"out/mine": b"mine"}


def test_images_go_beside_what_is_there_but_over_nothing(
    store: MemoryStore, manifest: Manifest, tmp_path: Path
) -> None:
    (tmp_path / "restore.log").write_bytes(b"log")
    write_images(store, manifest, manifest.members[0], tmp_path)
    assert files(tmp_path) == {**IMAGES, "restore.log": b"log"}
    with pytest.raises(StoreFailed, match="File exists"):
        write_images(store, manifest, manifest.members[0], tmp_path)
