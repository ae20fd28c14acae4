"""A layer that is filled below its overlay: real overlays, and agents that died at any moment."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.errors import RestoreFailed
from agent.host import mounting
from agent.host.mountinfo import read, topmost
from agent.host.remount import Layer
from agent.host.run import run
from agent.operation import journal
from agent.operation.journal import Operation, Record
from agent.operation.layers import FreshLayer, find_fresh, has_left_layers, recover_layer

pytestmark = pytest.mark.root


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle on an overlay, and an operation on it."""

    path: Path
    operation: Operation

    @property
    def rootfs(self) -> Path:
        return self.path / "rootfs"

    @property
    def upper(self) -> Path:
        return self.path / "upper"

    @property
    def note(self) -> Path:
        return self.operation.directory / "layer.json"

    def mount(self) -> None:
        options = f"lowerdir={self.path}/lower,upperdir={self.upper},workdir={self.path}/work"
        at = os.fsencode(self.rootfs)
        mounting.mount(b"overlay", at, b"overlay", 0, os.fsencode(options))

    def is_mounted(self) -> bool:
        return topmost(os.fsencode(self.rootfs), read()) is not None

    def unmount(self) -> None:
        mounting.unmount(os.fsencode(self.rootfs))

    def found(self) -> Layer:
        layer = find_fresh(self.path)
        assert layer is not None
        return layer

    def fresh(self) -> FreshLayer:
        return FreshLayer(self.operation, self.found(), "it")

    async def fill(self, upper: Path) -> None:
        """As an unpacked tar does: content, and the directory's own owner and attributes."""
        assert upper == self.upper
        assert not self.is_mounted()
        (upper / "folder").mkdir()
        (upper / "folder" / "file").write_text("unpacked")
        os.chown(upper, 11, 22)
        os.chmod(upper, 0o700)
        os.setxattr(upper, "trusted.note", b"the layer's")

    async def fill_and_die(self) -> None:
        """Leave it as a killed agent does."""
        with pytest.raises(_Died):
            await self.fresh().fill(self.half_way)
        assert self.note.exists()

    async def half_way(self, upper: Path) -> None:
        await self.fill(upper)
        raise _Died

    def assert_fresh(self) -> None:
        status = self.upper.stat()
        assert os.listdir(self.upper) == []
        assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (3, 4, 0o755)
        assert "trusted.note" not in os.listxattr(self.upper)
        assert os.getxattr(self.upper, "trusted.before") == b"kept"


class _Died(Exception):
    pass


@pytest.fixture
def bundle(tmp_path: Path) -> Iterator[Bundle]:
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    path = tmp_path / "bundle"
    path.mkdir()
    # A file system that an overlay takes wherever tests run.
    mounting.mount(b"tmpfs", os.fsencode(path), b"tmpfs", 0, b"size=8m")
    record = Record("restore", journal.new_id(), "sample", "memory://", "it")
    made = Bundle(path, journal.begin(tmp_path / "state", record))
    try:
        for name in ("lower", "upper", "work", "rootfs"):
            (path / name).mkdir()
        (path / "config.json").write_text(json.dumps({"root": {"path": "rootfs"}}))
        os.chown(made.upper, 3, 4)
        os.setxattr(made.upper, "trusted.before", b"kept")
        made.mount()
        yield made
    finally:
        with contextlib.suppress(OSError):  # a test has
            made.operation.release()
        mounting.unmount(os.fsencode(path), mounting.MNT_DETACH)


async def test_filled(bundle: Bundle) -> None:
    assert await bundle.fresh().fill(bundle.fill)
    assert (bundle.rootfs / "folder" / "file").read_text() == "unpacked"
    assert bundle.rootfs.stat().st_uid == 11
    assert not bundle.note.exists()


async def test_filled_and_undone(bundle: Bundle) -> None:
    layer = bundle.fresh()
    await layer.fill(bundle.fill)
    # What became of it on the way.
    (bundle.rootfs / "dev").mkdir()
    await layer.undo()
    assert bundle.is_mounted()
    bundle.assert_fresh()
    assert not bundle.note.exists()
    # Nothing more is there to be undone.
    (bundle.rootfs / "mine").touch()
    await layer.undo()
    assert (bundle.rootfs / "mine").exists()


async def test_undonehalf_way(bundle: Bundle) -> None:
    layer = bundle.fresh()
    with pytest.raises(_Died):
        await layer.fill(bundle.half_way)
    await layer.undo()
    assert bundle.is_mounted()
    bundle.assert_fresh()


async def test_undone_with_a_thousand_folders_in_each_other(bundle: Bundle) -> None:
    async def deep(upper: Path) -> None:
        await bundle.fill(upper)
        # About as deep as a tar can have it, whose names have 4095 bytes at most.
        await run(["mkdir", "-p", f"{upper}/{'d/' * 1900}"])

    layer = bundle.fresh()
    await layer.fill(deep)
    await layer.undo()
    bundle.assert_fresh()


async def test_one_in_use_is_left(bundle: Bundle) -> None:
    layer = bundle.fresh()
    (bundle.path / "lower" / "program").touch()
    with (bundle.rootfs / "program").open():
        assert not await layer.fill(bundle.fill)
    assert bundle.is_mounted()
    assert not bundle.note.exists()
    await layer.undo()
    bundle.assert_fresh()


async def test_one_that_was_written_to_meanwhile_is_left(bundle: Bundle) -> None:
    layer = bundle.fresh()
    (bundle.rootfs / "mine").touch()
    assert not await layer.fill(bundle.fill)
    assert (bundle.rootfs / "mine").exists()
    assert not bundle.note.exists()
    await layer.undo()
    assert (bundle.rootfs / "mine").exists()


async def test_one_that_is_in_use_cannot_be_undone(bundle: Bundle) -> None:
    layer = bundle.fresh()
    await layer.fill(bundle.fill)
    with (bundle.rootfs / "folder" / "file").open():
        with pytest.raises(RestoreFailed, match="busy"):
            await layer.undo()
        assert (bundle.rootfs / "folder").exists()
    assert not bundle.note.exists()
    await layer.undo()
    bundle.assert_fresh()


async def test_what_is_fresh(bundle: Bundle) -> None:
    assert find_fresh(bundle.path) is not None
    (bundle.rootfs / "file").touch()
    assert find_fresh(bundle.path) is None
    bundle.unmount()
    assert find_fresh(bundle.path) is None
    (bundle.path / "config.json").unlink()
    assert find_fresh(bundle.path) is None


async def test_a_dead_agents_layer(bundle: Bundle) -> None:
    await bundle.fill_and_die()
    assert not bundle.is_mounted()
    assert await recover_layer(bundle.operation, "it")
    assert bundle.is_mounted()
    bundle.assert_fresh()


async def test_a_dead_agents_layer_that_somebody_has_mounted(bundle: Bundle) -> None:
    await bundle.fill_and_die()
    bundle.mount()
    assert not await recover_layer(bundle.operation, "it")
    assert (bundle.rootfs / "folder" / "file").exists()


async def test_a_dead_agents_layer_that_is_mounted_elsewhere(bundle: Bundle) -> None:
    await bundle.fill_and_die()
    bundle.rootfs.rename(bundle.path / "other")
    (bundle.path / "rootfs").symlink_to("other")
    options = f"lowerdir={bundle.path}/lower,upperdir={bundle.upper},workdir={bundle.path}/work"
    at = os.fsencode(bundle.path / "other")
    mounting.mount(b"overlay", at, b"overlay", 0, os.fsencode(options))
    assert not await recover_layer(bundle.operation, "it")
    assert (bundle.upper / "folder").exists()


async def test_a_dead_agents_layer_after_a_reboot(bundle: Bundle) -> None:
    await bundle.fill_and_die()
    note = json.loads(bundle.note.read_text())
    bundle.note.write_text(json.dumps({**note, "boot": "another"}))
    assert await recover_layer(bundle.operation, "it")
    assert not bundle.is_mounted()
    bundle.assert_fresh()


async def test_a_dead_agents_layer_whose_bundle_is_gone(bundle: Bundle) -> None:
    await bundle.fill_and_die()
    bundle.rootfs.rmdir()
    assert await recover_layer(bundle.operation, "it")
    bundle.upper.rename(bundle.path / "gone")
    assert not await recover_layer(bundle.operation, "it")


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"mount": "x"}'])
async def test_a_note_that_was_never_completed(bundle: Bundle, content: str) -> None:
    bundle.note.write_text(content)
    assert not await recover_layer(bundle.operation, "it")
    assert bundle.is_mounted()


async def test_nothing_to_recover(bundle: Bundle) -> None:
    assert not await recover_layer(bundle.operation, "it")


async def test_only_what_the_dead_have_left(bundle: Bundle) -> None:
    state_dir = bundle.operation.directory.parent.parent
    await bundle.fill_and_die()
    assert not has_left_layers(state_dir)
    bundle.operation.release()
    assert has_left_layers(state_dir)
    bundle.note.unlink()
    assert not has_left_layers(state_dir)
