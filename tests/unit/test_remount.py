"""An overlay taken down and put up again: real mounts, and the kernel's own word for the result."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.host import mounting
from agent.host.mountinfo import Mount, read, topmost
from agent.host.remount import RemountFailed, put_up, take_down

pytestmark = pytest.mark.root


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Path]:
    """A file system that an overlay takes wherever tests run; all mounts in it go with it."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    at = tmp_path / "storage"
    at.mkdir()
    mounting.mount(b"tmpfs", os.fsencode(at), b"tmpfs", 0, b"size=8m")
    try:
        yield at
    finally:
        mounting.unmount(os.fsencode(at), mounting.MNT_DETACH)


@contextmanager
def overlay(
    storage: Path, options: str, *, flags: int = 0, point: str = "merged", at: Path | None = None
) -> Iterator[Path]:
    """An overlay mounted from ``at`` with those options, which may be as long as mount(2) takes."""
    merged = storage / point
    merged.mkdir(exist_ok=True)
    here = os.open(".", os.O_PATH)
    os.chdir(at or storage)
    try:
        mounting.mount(b"overlay", os.fsencode(merged), b"overlay", flags, os.fsencode(options))
    finally:
        os.fchdir(here)
        os.close(here)
    try:
        yield merged
    finally:
        while topmost(os.fsencode(merged), read()):
            mounting.unmount(os.fsencode(merged), mounting.MNT_DETACH)


def directories(storage: Path, *names: str) -> None:
    for name in names:
        (storage / name).mkdir(parents=True)


def seen(point: Path) -> Mount:
    """What the kernel says of the mount; fails when there is none, or more than one."""
    (found,) = [mount for mount in read() if mount.point == os.fsencode(point)]
    return found


def facts(mount: Mount) -> list[object]:
    shared = [tag.partition(b":")[0] for tag in mount.shared]
    return [mount.source, mount.options, mount.super_options, mount.root, shared]


def refilled(merged: Path) -> None:
    """Take it down, write below it, put it up again: all is as before, and the new file seen."""
    before = facts(seen(merged))
    layer = take_down(merged)
    assert topmost(os.fsencode(merged), read()) is None
    (Path(os.fsdecode(layer.upper)) / "put").write_text("below")
    put_up(layer)
    assert facts(seen(merged)) == before
    assert (merged / "put").read_text() == "below"


def test_as_containerd_mounts(storage: Path) -> None:
    directories(storage, "1/fs", "2/fs", "3/fs", "3/work")
    options = f"lowerdir={storage}/2/fs:{storage}/1/fs,upperdir={storage}/3/fs"
    with overlay(storage, f"{options},workdir={storage}/3/work,index=off") as merged:
        # What the kernel has looked up once, it remembers.
        assert not (merged / "put").exists()
        refilled(merged)


def test_as_containerd_mounts_many_layers(storage: Path) -> None:
    """Named from the snapshots' directory, except the upper one."""
    directories(storage, "1/fs", "2/fs", "3/fs", "3/work")
    options = f"lowerdir=2/fs:1/fs,upperdir={storage}/3/fs,workdir={storage}/3/work"
    with overlay(storage, options) as merged:
        here, threads = os.getcwd(), threading.active_count()
        refilled(merged)
        assert (os.getcwd(), threading.active_count()) == (here, threads)


def test_as_containers_storage_mounts(storage: Path) -> None:
    directories(storage, "l", "base/diff", "a1/diff", "a1/work", "a1/merged")
    (storage / "l" / "ABC").symlink_to("../base/diff")
    options = "lowerdir=l/ABC,upperdir=a1/diff,workdir=a1/work,volatile,metacopy=on"
    with overlay(storage, options, point="a1/merged", flags=mounting.NODEV) as merged:
        refilled(merged)


def test_as_mounted_layer_by_layer(storage: Path) -> None:
    """More options than a page has, as Linux allows since 6.8."""
    names = [f"{'long' * 30}-{number}" for number in range(40)]
    directories(storage, *names, "up", "work")
    layers = [(b"lowerdir+", os.fsencode(storage / name)) for name in names]
    own: list[tuple[bytes, bytes | None]] = [
        (b"upperdir", os.fsencode(storage / "up")), (b"workdir", os.fsencode(storage / "work")),
    ]  # fmt: skip
    merged = storage / "merged"
    merged.mkdir()
    flags = mounting.NOSUID | mounting.NOATIME
    mounting.mount_by_steps(b"none", os.fsencode(merged), b"overlay", flags, [*layers, *own])
    refilled(merged)


@pytest.mark.parametrize("name", ["two words", "tab\there", "a,b", "c:d", "e\\f", "ümläut", "n\nl"])
def test_names_that_are_quoted(storage: Path, name: str) -> None:
    directories(storage, f"low{name}", f"up{name}", f"work{name}", "other")
    quoted = name.replace("\\", "\\\\").replace(",", "\\,").replace(":", "\\:")
    options = f"lowerdir={storage}/low{quoted}:{storage}/other,upperdir={storage}/up{quoted}"
    with overlay(
        storage, f"{options},workdir={storage}/work{quoted}", point=f"merged{name}"
    ) as merged:
        refilled(merged)


FLAGS = {
    "noexec": mounting.NOEXEC,
    "noatime": mounting.NOATIME | mounting.NODIRATIME,
    "strictatime": mounting.STRICTATIME,
    "nosymfollow": mounting.NOSYMFOLLOW,
    "nosuid": mounting.NOSUID | mounting.NODEV,
}


def simple(storage: Path) -> str:
    directories(storage, "low", "up", "work")
    return f"lowerdir={storage}/low,upperdir={storage}/up,workdir={storage}/work"


@pytest.mark.parametrize("flags", FLAGS.values(), ids=list(FLAGS))
def test_flags_stay(storage: Path, flags: int) -> None:
    with overlay(storage, simple(storage), flags=flags) as merged:
        refilled(merged)


def test_an_overlay_that_is_read_only(storage: Path) -> None:
    with overlay(storage, simple(storage), flags=mounting.RDONLY) as merged:
        refilled(merged)


def test_a_mount_that_is_read_only(storage: Path) -> None:
    with overlay(storage, simple(storage)) as merged:
        flags = mounting.REMOUNT | mounting.BIND | mounting.RDONLY | mounting.RELATIME
        mounting.mount(b"none", os.fsencode(merged), b"", flags)
        assert seen(merged).super_options[0] == (b"rw", None)
        refilled(merged)


PROPAGATIONS = {
    "shared": mounting.SHARED,
    "private": mounting.PRIVATE,
    "unbindable": mounting.UNBINDABLE,
}


@pytest.mark.parametrize("own", PROPAGATIONS.values(), ids=list(PROPAGATIONS))
@pytest.mark.parametrize("parents", [mounting.SHARED, mounting.PRIVATE], ids=["under", "apart"])
def test_propagation_stays(storage: Path, own: int, parents: int) -> None:
    mounting.mount(b"none", os.fsencode(storage), b"", parents)
    with overlay(storage, simple(storage)) as merged:
        mounting.mount(b"none", os.fsencode(merged), b"", own)
        refilled(merged)


def unchanged(merged: Path, reason: str) -> None:
    before = facts(seen(merged))
    with pytest.raises(RemountFailed, match=reason):
        take_down(merged)
    assert facts(seen(merged)) == before


def test_one_in_use_stays(storage: Path) -> None:
    with overlay(storage, simple(storage)) as merged:
        with (merged / "open").open("w"):
            unchanged(merged, "busy")
        refilled(merged)


def test_one_with_mounts_in_it_stays(storage: Path) -> None:
    with overlay(storage, simple(storage)) as merged:
        (merged / "proc").mkdir()
        mounting.mount(b"tmpfs", os.fsencode(merged / "proc"), b"tmpfs", 0)
        unchanged(merged, "busy")
        mounting.unmount(os.fsencode(merged / "proc"))


def test_one_that_is_mounted_twice_stays(storage: Path) -> None:
    """What is written below it would be below the other one."""
    with overlay(storage, simple(storage)) as merged:
        (storage / "twin").mkdir()
        mounting.mount(os.fsencode(merged), os.fsencode(storage / "twin"), b"", mounting.BIND)
        unchanged(merged, f"also mounted at {storage}/twin")


def test_one_without_an_upper_directory_stays(storage: Path) -> None:
    directories(storage, "low", "lower")
    with overlay(storage, f"lowerdir={storage}/low:{storage}/lower") as merged:
        unchanged(merged, "read-only")


@pytest.mark.parametrize("gone", ["low", "up", "work"])
def test_one_whose_layers_cannot_be_found_stays(storage: Path, gone: str) -> None:
    with overlay(storage, simple(storage)) as merged:
        (storage / gone).rename(storage / "elsewhere")
        unchanged(merged, f"{gone}.* cannot be found")


def test_one_of_another_namespace_stays(storage: Path) -> None:
    """A slave's copy: unmounting it here would leave it where it was mounted."""
    mounting.mount(b"none", os.fsencode(storage), b"", mounting.SHARED)
    text = "import sys; from agent.host.remount import take_down; take_down(sys.argv[1])"
    with overlay(storage, simple(storage)) as merged:
        done = subprocess.run(
            ["unshare", "--mount", "--propagation", "slave", sys.executable, "-c", text, merged],
            capture_output=True,
            text=True,
        )
        assert "another mount namespace's" in done.stderr
        refilled(merged)


def test_no_overlay(storage: Path) -> None:
    with pytest.raises(RemountFailed, match="no overlay"):
        take_down(storage)
    with pytest.raises(RemountFailed, match="no overlay"):
        take_down(storage / "nowhere")


def test_a_directory_of_an_overlay_is_none(storage: Path) -> None:
    with overlay(storage, simple(storage)) as merged:
        (merged / "part").mkdir()
        (storage / "elsewhere").mkdir()
        mounting.mount(
            os.fsencode(merged / "part"), os.fsencode(storage / "elsewhere"), b"", mounting.BIND
        )
        with pytest.raises(RemountFailed, match="no overlay"):
            take_down(storage / "elsewhere")


def test_putting_up_can_be_tried_again(storage: Path) -> None:
    with overlay(storage, simple(storage)) as merged:
        layer = take_down(merged)
        merged.rmdir()
        with pytest.raises(RemountFailed, match="not mounted any more"):
            put_up(layer)
        merged.mkdir()
        put_up(layer)
        (merged / "written").write_text("through it")
        assert (storage / "up" / "written").exists()


def test_it_starts_quickly() -> None:
    """What would cost a container's start more than it does: each of these takes 5 ms and more."""
    text = "import sys; sys.path.insert(0, '.'); import agent.host.remount; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", text], capture_output=True, text=True, check=True
    )
    assert not {"re", "typing", "dataclasses", "pathlib", "threading"} & set(done.stdout.split())
