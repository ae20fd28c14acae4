"""Where a container's writable layer is: read from the kernel's own table of real mounts."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.host.overlay import writable_layer

pytestmark = pytest.mark.root

# Of the mounts that stand for a container's: no process's table has "/" as an overlay of ours.
_NOBODY = 0


def _bundle(path: Path, root: str) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps({"root": {"path": root}}))
    return path


@contextmanager
def _overlay(directory: Path, at: Path, *, upper: str | None = "upper") -> Iterator[Path]:
    """An overlay of new directories, mounted; the name of its upper one may be anything."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    directory.mkdir()
    with _mounted("tmpfs", "size=1m", directory):  # which an overlay takes wherever tests run
        for name in ("lower", "under", "work", *([upper] if upper else [])):
            (directory / name).mkdir()
        at.mkdir(parents=True, exist_ok=True)
        options = f"lowerdir={directory}/lower:{directory}/under"
        if upper:
            options += f",upperdir={directory}/{_quoted(upper)},workdir={directory}/work"
        with _mounted("overlay", options, at):
            yield directory / (upper or "")


@contextmanager
def _mounted(kind: str, options: str, at: Path) -> Iterator[None]:
    subprocess.run(["mount", "-t", kind, "-o", options, kind, at], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", at], check=True)


def _quoted(name: str) -> str:
    return name.replace(",", "\\,")


def test_an_overlay_at_a_relative_root(tmp_path: Path) -> None:
    bundle = _bundle(tmp_path / "bundle", "rootfs")
    with _overlay(tmp_path / "layers", bundle / "rootfs") as upper:
        (bundle / "rootfs" / "written").write_text("by the container")
        found = writable_layer(bundle, _NOBODY)
        assert found == upper
        assert (found / "written").read_text() == "by the container"


def test_an_absolute_root_behind_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    bundle = _bundle(tmp_path / "bundle", str(tmp_path / "link" / "merged"))
    with _overlay(tmp_path / "layers", tmp_path / "real" / "merged") as upper:
        assert writable_layer(bundle, _NOBODY) == upper


@pytest.mark.parametrize("name", ["two words", "tab\there", "a,b", "ümläut", "new\nline"])
def test_names_that_the_kernel_escapes(tmp_path: Path, name: str) -> None:
    bundle = _bundle(tmp_path / f"bundle of {name}", "rootfs")
    with _overlay(tmp_path / "layers", bundle / "rootfs", upper=name) as upper:
        assert writable_layer(bundle, _NOBODY) == upper


def test_the_topmost_of_several_mounts(tmp_path: Path) -> None:
    bundle = _bundle(tmp_path / "bundle", "rootfs")
    with (
        _overlay(tmp_path / "first", bundle / "rootfs"),
        _overlay(tmp_path / "second", bundle / "rootfs") as upper,
    ):
        assert writable_layer(bundle, _NOBODY) == upper


def test_layers_named_from_their_own_directory(tmp_path: Path) -> None:
    """As CRI-O's storage mounts when the options would be longer than a page."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    storage = tmp_path / "overlay"
    storage.mkdir()
    bundle = _bundle(tmp_path / "bundle", str(storage / "a1" / "merged"))
    with _mounted("tmpfs", "size=1m", storage):
        for name in ("l", "a1/diff", "a1/work", "a1/merged"):
            (storage / name).mkdir(parents=True)
        options = "lowerdir=l,upperdir=a1/diff,workdir=a1/work"
        # busybox, as util-linux makes paths of its own from these.
        mount = ["busybox", "mount", "-t", "overlay", "-o", options, "overlay", "a1/merged"]
        subprocess.run(mount, cwd=storage, check=True)
        try:
            assert "upperdir=a1/diff" in Path("/proc/self/mountinfo").read_text()
            assert writable_layer(bundle, _NOBODY) == storage / "a1" / "diff"
        finally:
            subprocess.run(["umount", storage / "a1" / "merged"], check=True)


def test_a_directory_of_an_overlay_is_none(tmp_path: Path) -> None:
    """On a machine that is a container itself: its own layer is not that of what runs in it."""
    bundle = _bundle(tmp_path / "bundle", "rootfs")
    (bundle / "rootfs").mkdir()
    with _overlay(tmp_path / "layers", tmp_path / "machine"):
        (tmp_path / "machine" / "rootfs").mkdir()
        subprocess.run(
            ["mount", "--bind", tmp_path / "machine/rootfs", bundle / "rootfs"], check=True
        )
        try:
            assert writable_layer(bundle, _NOBODY) is None
        finally:
            subprocess.run(["umount", bundle / "rootfs"], check=True)


def test_layers_that_cannot_be_reached(tmp_path: Path) -> None:
    bundle = _bundle(tmp_path / "bundle", "rootfs")
    layers = tmp_path / "layers"
    with _overlay(layers, bundle / "rootfs"), _mounted("tmpfs", "size=1m", layers):
        assert writable_layer(bundle, _NOBODY) is None


def test_a_read_only_overlay_has_none(tmp_path: Path) -> None:
    bundle = _bundle(tmp_path / "bundle", "rootfs")
    with _overlay(tmp_path / "layers", bundle / "rootfs", upper=None):
        assert writable_layer(bundle, _NOBODY) is None


def test_a_plain_directory_has_none(tmp_path: Path) -> None:
    bundle = _bundle(tmp_path / "bundle", "rootfs")
    (bundle / "rootfs").mkdir()
    assert writable_layer(bundle, _NOBODY) is None


@pytest.mark.parametrize("content", ["", "[]", '{"root": {}}', '{"root": {"path": 7}}'])
def test_a_bundle_that_says_nothing_has_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    assert writable_layer(tmp_path, _NOBODY) is None


@pytest.mark.parametrize("users", [[], ["--user", "--map-root-user"]], ids=["ours", "its own"])
def test_seen_only_by_the_process_in_it(tmp_path: Path, users: list[str]) -> None:
    """In a mount namespace of its own, whose root is the overlay: as seen by an agent in a pod.

    With a user namespace of its own anybody can have that, and the directory of any name.
    """
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    busybox = shutil.which("busybox")
    assert busybox is not None
    bundle = _bundle(tmp_path / "bundle", "rootfs")
    layers = tmp_path / "layers"
    layers.mkdir()
    (bundle / "rootfs").mkdir()
    script = (
        f"cd {layers} && mkdir -p lower/old upper work && cp {busybox} lower/cat"
        " && mount -t overlay overlay"
        f" -o lowerdir={layers}/lower,upperdir={layers}/upper,workdir={layers}/work {bundle}/rootfs"
        f" && cd {bundle}/rootfs && pivot_root . old && exec /cat"
    )
    with (
        _mounted("tmpfs", "size=10m", layers),
        subprocess.Popen(
            ["unshare", *users, "--mount", "--propagation", "private", "sh", "-c", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"up\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"up\n"
        assert writable_layer(bundle, process.pid) == (None if users else layers / "upper")
        assert writable_layer(bundle, _NOBODY) is None
