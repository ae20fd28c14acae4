"""Archives: what is in them, whole or not at all, and the same again when they are imported."""

from __future__ import annotations

import gzip
import json
import random
import stat
import tarfile
from pathlib import Path

import pytest
import zstandard

from agent.archive.names import Form
from agent.archive.take import ImportRequest, import_archive
from agent.archive.write import ArchiveRequest, ArchiveResult, export_archives
from agent.chunks import read_manifest
from agent.errors import (
    AlreadyExists,
    CheckpointCorrupt,
    InvalidArgument,
)
from agent.manifest import MANIFEST, Manifest, Volume, to_bytes
from agent.report import Update
from agent.store.base import Data
from agent.store.memory import MemoryStore
from tests.archives import content, entries, member, tar
from tests.checkpoints import ID, replace, write_checkpoint
from tests.pipelines import read_images

POD = {
    "io.kubernetes.cri.container-type": "container",
    "io.kubernetes.cri.container-name": "app",
    "io.kubernetes.cri.image-name": "docker.io/library/busybox:1.36",
    "io.kubernetes.cri.sandbox-uid": "1-2",
    "io.kubernetes.cri.sandbox-namespace": "default",
    "io.kubernetes.cri.sandbox-name": "web",
    "io.kubernetes.cri.sandbox-id": "3",
}
WHITEOUT = member("./gone", tarfile.CHRTYPE, devmajor=0, devminor=0)
LAYER = tar([("./new", b"new"), (WHITEOUT, b""), ("./large", bytes(3 << 20))])
SPEC = json.dumps({"annotations": POD, "process": {"user": {"uid": 7, "gid": 8}}}).encode()
IMAGES = {
    "inventory.img": b"inventory",
    "pstree.img": b"pstree",
    "pages-1.img": random.Random(1).randbytes(5 << 20),
    "tmpfs-dev-4.tar.gz.img": b"not a tar at all",
    "descriptors.json": b"[]",
    "config.json": SPEC,
    "stats-dump": b"stats",
    "rootfs-diff.tar": LAYER,
}


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore("archives")


@pytest.fixture
def manifest(store: MemoryStore) -> Manifest:
    return write_checkpoint(store, IMAGES, chunk_size=1 << 17)


async def export(store: MemoryStore, target: Path, **more: object) -> ArchiveResult:
    return await export_archives(ArchiveRequest(store, ID, target, **more))  # type: ignore[arg-type]


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


async def test_what_is_in_an_archive(
    store: MemoryStore, manifest: Manifest, tmp_path: Path
) -> None:
    seen: list[Update] = []
    request = ArchiveRequest(store, ID, tmp_path / "new" / "c.tar")
    result = await export_archives(request, observer=seen.append)
    found = content(tmp_path / "new" / "c.tar")
    # checkpointctl looks for the directory itself.
    assert entries((tmp_path / "new" / "c.tar").read_bytes())["checkpoint"].isdir()
    for name in ("inventory.img", "pages-1.img", "tmpfs-dev-4.tar.gz.img", "descriptors.json"):
        assert found.pop(f"checkpoint/{name}") == IMAGES[name]
    assert found.pop("checkpoint/pstree.img") == b"pstree"
    assert found.pop("spec.dump") == SPEC
    assert found.pop("stats-dump") == b"stats"
    assert json.loads(found.pop("deleted.files")) == ["/gone"]
    assert sorted(entries(found.pop("rootfs-diff.tar"))) == ["./large", "./new"]
    config, status = (json.loads(found.pop(name)) for name in ("config.dump", "status.dump"))
    assert found == {}
    image = "docker.io/library/busybox:1.36"
    assert (config["id"], config["name"], config["rootfsImageName"]) == ("c0", "c0", image)
    assert (config["user"], config["NoShm"]) == ("7:8", True)
    assert config["checkpointedTime"] == manifest.created_at
    assert (status["metadata"]["name"], status["image"]["image"]) == ("app", image)
    assert result.archives == [str(tmp_path / "new" / "c.tar")]
    assert result.bytes_written == (tmp_path / "new" / "c.tar").stat().st_size
    assert result.bytes_raw == seen[-1].bytes_raw
    assert names(tmp_path / "new") == ["c.tar"]


async def test_only_the_owner_can_read_it(
    store: MemoryStore, manifest: Manifest, tmp_path: Path
) -> None:
    await export(store, tmp_path / "c.tar")
    assert stat.S_IMODE((tmp_path / "c.tar").stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("name", "form"),
    [("c.tar.gz", None), ("c.tgz", None), ("c.tar.zst", None), ("c", Form.GZIP), ("c", Form.ZSTD)],
)
async def test_compressed(
    store: MemoryStore, manifest: Manifest, tmp_path: Path, name: str, form: Form | None
) -> None:
    await export(store, tmp_path / "plain", form=Form.NONE)
    result = await export(store, tmp_path / name, form=form)
    data = (tmp_path / name).read_bytes()
    if result.compression == "gzip":
        plain = gzip.decompress(data)
    else:
        plain = zstandard.ZstdDecompressor().decompressobj().decompress(data)
    assert plain == (tmp_path / "plain").read_bytes()


@pytest.mark.parametrize("form", list(Form))
async def test_every_image_comes_back_as_it_was(
    store: MemoryStore, manifest: Manifest, tmp_path: Path, form: Form
) -> None:
    await export(store, tmp_path / "c", form=form)
    request = ImportRequest(str(tmp_path / "c"), MemoryStore("again"))
    result = await import_archive(request, state_dir=tmp_path / "state")
    back = read_manifest(request.store, result.checkpoint_id)
    found = read_images(request.store, back)
    layer = entries(found.pop("rootfs-diff.tar"))
    assert sorted(layer) == ["./gone", "./large", "./new"]
    assert (layer["./gone"].ischr(), layer["./gone"].devmajor) == (True, 0)
    assert found == {name: data for name, data in IMAGES.items() if name != "rootfs-diff.tar"}
    kinds = {image.name: image.kind for image in manifest.members[0].images}
    assert {image.name: image.kind for image in back.members[0].images} == kinds
    # As the pod calls it: the archive's name for it is its checkpoint's.
    assert (back.members[0].name, back.members[0].target, back.kind) == ("app", "c0", "rootfs")


async def test_several_members(store: MemoryStore, tmp_path: Path) -> None:
    write_checkpoint(store, IMAGES, {**IMAGES, "pages-1.img": b"2"})
    result = await export(store, tmp_path / "out", form=Form.GZIP)
    assert names(tmp_path / "out") == ["c0.tar.gz", "c1.tar.gz"]
    assert result.archives == [str(tmp_path / "out" / name) for name in names(tmp_path / "out")]
    assert content(tmp_path / "out" / "c1.tar.gz")["checkpoint/pages-1.img"] == b"2"
    one = await export(store, tmp_path / "c1.tar", member="c1")
    assert (one.archives, one.members) == ([str(tmp_path / "c1.tar")], ["c1"])
    assert content(tmp_path / "c1.tar")["checkpoint/pages-1.img"] == b"2"
    with pytest.raises(InvalidArgument, match="'c2' is none of c0, c1"):
        await export(store, tmp_path / "c2.tar", member="c2")


async def test_volumes_go_with_those_that_have_them(store: MemoryStore, tmp_path: Path) -> None:
    empty = "/var/lib/kubelet/pods/1/volumes/kubernetes.io~empty-dir"
    mounts = [
        {"destination": "/dev/shm", "type": "bind", "source": "/run/sandboxes/3/shm"},
        {"destination": "/data", "type": "bind", "source": f"{empty}/data/sub"},
    ]
    first = {**IMAGES, "config.json": json.dumps({"mounts": mounts}).encode()}
    manifest = write_checkpoint(store, first, IMAGES)
    [image] = [one for one in manifest.members[0].images if one.name == "rootfs-diff.tar"]
    image = image.model_copy(update={"name": "volume.tar", "kind": "volume"})
    volumes = [
        Volume(name="shm", medium="shm", image=image),
        Volume(name="data", medium="empty-dir", image=image),
    ]
    changed = manifest.model_copy(update={"volumes": volumes})
    replace(store, f"{ID}/{MANIFEST}", to_bytes(changed))

    await export(store, tmp_path / "out")

    found = content(tmp_path / "out" / "c0.tar")
    assert found["devshm-checkpoint.tar"] == found["volumes/data.tar"] == LAYER
    # Podman puts its own there, for that to be unpacked into.
    assert json.loads(found["config.dump"])["NoShm"] is False
    other = content(tmp_path / "out" / "c1.tar")
    assert not [name for name in other if "shm" in name or name.startswith("volumes")]


async def test_another_image(store: MemoryStore, manifest: Manifest, tmp_path: Path) -> None:
    await export(store, tmp_path / "c.tar", image="localhost/mine:2")
    config = json.loads(content(tmp_path / "c.tar")["config.dump"])
    assert config["rootfsImageRef"] == config["rootfsImageID"] == "localhost/mine:2"


async def test_nothing_is_invented(store: MemoryStore, tmp_path: Path) -> None:
    write_checkpoint(store, {**IMAGES, "config.json": b"{}"})
    await export(store, tmp_path / "c.tar")
    found = content(tmp_path / "c.tar")
    config = json.loads(found["config.dump"])
    assert (config["rootfsImageName"], config["createdTime"]) == ("", "0001-01-01T00:00:00Z")
    assert "status.dump" not in found


@pytest.mark.parametrize(
    ("missing", "reason"), [("config.json", "no container"), ("inventory.img", "no processes")]
)
async def test_members_that_are_no_containers(
    store: MemoryStore, tmp_path: Path, missing: str, reason: str
) -> None:
    write_checkpoint(store, {name: data for name, data in IMAGES.items() if name != missing})
    with pytest.raises(InvalidArgument, match=reason):
        await export(store, tmp_path / "c.tar")
    assert names(tmp_path) == []


async def test_a_layer_that_cannot_be_said(store: MemoryStore, tmp_path: Path) -> None:
    moved = member("./d", tarfile.DIRTYPE)
    moved.pax_headers = {"SCHILY.xattr.trusted.overlay.redirect": "/x"}
    write_checkpoint(store, {**IMAGES, "rootfs-diff.tar": tar([(moved, b"")])})
    with pytest.raises(InvalidArgument, match="the writable layer of c0: /d is kept in the image"):
        await export(store, tmp_path / "c.tar")
    assert names(tmp_path) == []


async def test_a_file_that_appears_meanwhile(manifest: Manifest, tmp_path: Path) -> None:
    class Interfering(MemoryStore):
        def read(self, path: str, offset: int, length: int) -> Data:
            if "stream" in path:
                (tmp_path / "c.tar").write_bytes(b"mine")
            return super().read(path, offset, length)

    store = Interfering("interfering")
    write_checkpoint(store, IMAGES)
    with pytest.raises(AlreadyExists):
        await export(store, tmp_path / "c.tar")
    assert (tmp_path / "c.tar").read_bytes() == b"mine"
    assert names(tmp_path) == ["c.tar"]


@pytest.mark.parametrize("mounts", [5, "x", {"a": 1}, [5, None], None])
async def test_mounts_that_are_none(store: MemoryStore, tmp_path: Path, mounts: object) -> None:
    spec = json.dumps({"mounts": mounts}).encode()
    write_checkpoint(store, {**IMAGES, "config.json": spec})
    await export(store, tmp_path / "c.tar")
    assert content(tmp_path / "c.tar")["spec.dump"] == spec


@pytest.mark.parametrize("spec", [b"[]", b"{", bytes(17 << 20)], ids=["list", "half", "huge"])
async def test_a_config_that_cannot_be_used(
    store: MemoryStore, tmp_path: Path, spec: bytes
) -> None:
    write_checkpoint(store, {**IMAGES, "config.json": spec})
    with pytest.raises(CheckpointCorrupt, match=r"c0: its config\.json cannot be used"):
        await export(store, tmp_path / "c.tar")
    assert names(tmp_path) == []
