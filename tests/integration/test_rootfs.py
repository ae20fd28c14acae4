"""Writable layers and volumes: what containers have changed on disk, of the same moment."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.checkpoint import CheckpointRequest, MemberRequest, checkpoint
from agent.chunks import read_manifest
from agent.compress import parse_compression
from agent.errors import DumpFailed, InvalidArgument, StoreFailed
from agent.export import export
from agent.manifest import ROOTFS_DIFF
from agent.report import CheckpointResult
from agent.restore import RestoreRequest, restore
from agent.targets import Kind, Volume
from bench.bundle import COUNTER
from bench.reports import SLOT
from bench.runc import Container
from tests.fakes.stores import failing
from tests.integration.aftermath import assert_unharmed, nothing_left
from tests.integration.lab import Lab, target_of
from tests.integration.moments import image_of, imaged_numbers, ring, volume

pytestmark = [pytest.mark.root, pytest.mark.criu]

HOLE = 64 << 20


def overlaid(lab: Lab) -> tuple[Container, Path]:
    """A container whose root filesystem is an overlay, and its writable layer."""
    bundle = lab.runc.build(COUNTER)
    lower, upper, work = (bundle.path / name for name in ("lower", "upper", "work"))
    rootfs = bundle.path / "rootfs"
    rootfs.rename(lower)
    for folder in (rootfs, upper, work, lower / "etc", lower / "old"):
        folder.mkdir()
    (lower / "etc" / "gone").write_text("removed by the container")
    (lower / "old" / "file").write_text("in a directory that is replaced")
    options = f"lowerdir={lower},upperdir={upper},workdir={work}"
    subprocess.run(["mount", "-t", "overlay", "none", rootfs, "-o", options], check=True)
    return lab.runc.start(bundle), upper


def change(root: Path) -> None:
    """What containers do to their files, the difficult kinds of it."""
    (root / "etc" / "gone").unlink()
    (root / "old" / "file").unlink()
    (root / "old").rmdir()
    (root / "old").mkdir()
    (root / "owned").write_text("by somebody else")
    os.chown(root / "owned", 12345, 54321)
    (root / "owned").chmod(0o4750)
    os.setxattr(root / "owned", "user.note", b"kept\0whole")
    os.link(root / "owned", root / "twin")
    (root / "link").symlink_to("/nowhere")
    with (root / "sparse").open("wb") as file:
        file.seek(HOLE)
        file.write(b"end")
    (root / ("n" * 200 + "\n\u00e9")).write_text("a name")


async def take(lab: Lab, *containers: Container, **more: object) -> CheckpointResult:
    """A checkpoint of members c0, c1, ..."""
    members = tuple(MemberRequest(target_of(one), f"c{n}") for n, one in enumerate(containers))
    fields = {"members": members, "store": lab.store} | more
    request = CheckpointRequest(**fields)  # type: ignore[arg-type]
    return await checkpoint(request, tools=lab.tools, state_dir=lab.state_dir)


def unpacked(directory: Path, tar: bytes) -> Path:
    """What a tar holds, as files."""
    directory.mkdir()
    words = ["tar", "--extract", "--xattrs", "--xattrs-include=*", "--numeric-owner", "--sparse"]
    subprocess.run([*words, "--same-owner", "-p", "-C", directory], input=tar, check=True)
    return directory


@pytest.mark.parametrize("kind", [Kind.ROOTFS, Kind.ROOTFS_ONLY])
async def test_what_a_container_has_changed_comes_back(lab: Lab, kind: Kind) -> None:
    container, upper = overlaid(lab)
    change(container.bundle.path / "rootfs")

    done = await take(lab, container, kind=kind)

    assert_unharmed(container)
    tar = image_of(lab, done.checkpoint_id, ROOTFS_DIFF)
    assert len(tar) < HOLE // 4
    found = unpacked(lab.directory / "found", tar)
    whiteout = (found / "etc" / "gone").stat()
    assert stat.S_ISCHR(whiteout.st_mode)
    assert whiteout.st_rdev == 0
    assert os.getxattr(found / "old", "trusted.overlay.opaque") == b"y"
    owned = (found / "owned").stat()
    assert (owned.st_uid, owned.st_gid, owned.st_mode & 0o7777) == (12345, 54321, 0o4750)
    assert os.getxattr(found / "owned", "user.note") == b"kept\0whole"
    assert (found / "twin").stat().st_ino == owned.st_ino
    assert (found / "link").readlink() == Path("/nowhere")
    sparse = (found / "sparse").stat()
    assert (sparse.st_size, sparse.st_blocks * 512 < HOLE // 4) == (HOLE + 3, True)
    assert sorted(os.listdir(found)) == sorted(os.listdir(upper))
    kinds = {image.kind for image in read_manifest(lab.store, done.checkpoint_id).members[0].images}
    assert ("criu" in kinds) == (kind is Kind.ROOTFS)
    assert 0 < done.frozen_seconds < done.wall_seconds


async def test_a_layer_is_not_put_back_in_silence(lab: Lab) -> None:
    container, _ = overlaid(lab)
    done = await take(lab, container, kind=Kind.ROOTFS, stop=True)

    result = await lab.restore(done.checkpoint_id)

    assert result.not_restored == [f"c0/{ROOTFS_DIFF}"]
    assert lab.runc.containers() == [container.id]


async def test_there_is_nothing_to_run_in_root_filesystems(lab: Lab) -> None:
    container, _ = overlaid(lab)
    done = await take(lab, container, kind=Kind.ROOTFS_ONLY)

    request = RestoreRequest(lab.store, done.checkpoint_id, container="other")
    with pytest.raises(InvalidArgument, match="nothing to run"):
        await restore(request, tools=lab.tools, state_dir=lab.state_dir)


async def test_volumes_are_taken_along(lab: Lab) -> None:
    """Larger than all memory that the agent works in; a socket in it is nobody's file."""
    made = [lab.runc.start(lab.runc.build(COUNTER)) for _ in range(2)]
    data, shm = lab.directory / "data", lab.directory / "shm"
    data.mkdir()
    shm.mkdir()
    content = os.urandom(1 << 20) * 250
    (data / "large").write_bytes(content)
    (shm / "segment").write_bytes(b"shared")
    with socket.socket(socket.AF_UNIX) as listener:
        os.chdir(shm)
        listener.bind("socket")
        os.chdir("/")
        volumes = (Volume("data", data, "empty-dir"), Volume("dev", shm, "shm"))
        done = await take(lab, *made, volumes=volumes, compression=parse_compression("none"))

    for each in made:
        assert_unharmed(each)
    exported = await export(lab.store, done.checkpoint_id, lab.directory / "out")
    assert len(exported.directories) == 2
    tars = lab.directory / "out" / "volumes"
    large = unpacked(lab.directory / "1", (tars / "data.tar").read_bytes())
    assert (large / "large").read_bytes() == content
    small = unpacked(lab.directory / "2", (tars / "dev.tar").read_bytes())
    assert {path.name: path.read_bytes() for path in small.iterdir()} == {"segment": b"shared"}
    manifest = read_manifest(lab.store, done.checkpoint_id)
    assert [(one.name, one.medium) for one in manifest.volumes] == [
        ("data", "empty-dir"), ("dev", "shm"),
    ]  # fmt: skip


@contextmanager
def writing_to(directory: Path) -> Iterator[None]:
    """Somebody who is in no container and appends to all files, over and over."""
    loop = "while :; do for f in file*; do echo x >> $f; done; done"
    with subprocess.Popen(["/bin/sh", "-c", loop], cwd=directory) as writer:
        try:
            yield
        finally:
            writer.kill()


async def test_a_file_that_changes_meanwhile_is_an_error(lab: Lab) -> None:
    """Everybody who writes is frozen: somebody else does, and the tar is of no one moment."""
    container = lab.runc.start(lab.runc.build(COUNTER))
    data = lab.directory / "data"
    data.mkdir()
    for number in range(40):
        (data / f"file{number}").write_bytes(bytes(1 << 20))
    with (
        writing_to(data),
        nothing_left(lab),
        pytest.raises(DumpFailed, match=r"volume 'data'.*changed"),
    ):
        await take(lab, container, volumes=(Volume("data", data, "empty-dir"),))
    assert_unharmed(container)


async def test_a_store_that_fails_in_the_middle_of_a_tar(lab: Lab) -> None:
    container, upper = overlaid(lab)
    (container.bundle.path / "rootfs" / "large").write_bytes(os.urandom(1 << 20) * 120)
    broken = failing(lab.store, "write", 9)
    with nothing_left(lab), pytest.raises(StoreFailed):
        await take(lab, container, kind=Kind.ROOTFS_ONLY, store=broken)
    assert_unharmed(container)
    assert (upper / "large").exists()


async def test_memory_and_files_are_of_the_same_moment(lab: Lab) -> None:
    """Each writes its number into the volume as soon as it has it."""
    made = ring(lab, 20, 1, 1)

    done = await made.checkpoint(volumes=(volume(made.shared),))

    await export(lab.store, done.checkpoint_id, lab.directory / "out")
    tar = (lab.directory / "out" / "volumes" / "data.tar").read_bytes()
    file = (unpacked(lab.directory / "found", tar) / "numbers").read_bytes()
    numbers = imaged_numbers(lab, done.checkpoint_id)
    written = [SLOT.unpack_from(file, place * 64)[0] for place in range(3)]
    assert all(had - 1 <= wrote <= had for had, wrote in zip(numbers, written, strict=True))
    assert numbers[0] > 1
