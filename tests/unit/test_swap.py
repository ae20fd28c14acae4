"""A container's layer and that of its checkpoint change places, once, and back again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.host import mounting
from agent.host.remount import RemountFailed
from agent.host.wrapper.swap import Swap

pytestmark = pytest.mark.root


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Path]:
    """An overlay at `merged`, and a layer that is to take the place of `fs`."""
    yield from _storage(tmp_path, "index=off")


@pytest.fixture
def indexed(tmp_path: Path) -> Iterator[Path]:
    """The same, with an overlay that takes no other layer than the one it began with."""
    yield from _storage(tmp_path, "index=on")


def _storage(tmp_path: Path, index: str) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    at = tmp_path / "storage"
    at.mkdir()
    mounting.mount(b"tmpfs", os.fsencode(at), b"tmpfs", 0, b"size=8m")
    try:
        for name in ("lower", "fs", "work", "merged", "fs.checkpoint"):
            (at / name).mkdir()
        (at / "fs.checkpoint" / "note").write_text("from the checkpoint")
        options = f"lowerdir={at}/lower,upperdir={at}/fs,workdir={at}/work,{index}"
        merged = os.fsencode(at / "merged")
        mounting.mount(b"overlay", merged, b"overlay", 0, os.fsencode(options))
        yield at
    finally:
        mounting.unmount(os.fsencode(at), mounting.MNT_DETACH)


def test_there_and_back(storage: Path) -> None:
    swap = Swap(str(storage / "merged"))
    assert swap.upper() == str(storage / "fs")
    swap.put_in(str(storage / "fs.checkpoint"))
    assert (storage / "merged" / "note").read_text() == "from the checkpoint"
    swap.put_back()
    assert os.listdir(storage / "merged") == []
    assert sorted(os.listdir(storage)) == ["fs", "lower", "merged", "work"]


def test_a_second_try_has_it_already(storage: Path) -> None:
    """As after one in which CRIU could not stream."""
    swap = Swap(str(storage / "merged"))
    for _ in range(2):
        swap.put_in(str(storage / "fs.checkpoint"))
        assert (storage / "merged" / "note").read_text() == "from the checkpoint"
    swap.put_back()
    assert os.listdir(storage / "merged") == []


def test_one_that_is_not_there(storage: Path) -> None:
    (storage / "merged" / "own").touch()
    swap = Swap(str(storage / "merged"))
    with pytest.raises(FileNotFoundError):
        swap.put_in(str(storage / "nothing"))
    assert os.listdir(storage / "merged") == ["own"]
    swap.put_back()
    assert os.listdir(storage / "merged") == ["own"]


def test_one_that_the_kernel_refuses(indexed: Path) -> None:
    """Nothing is mounted then; the container's own layer comes back all the same."""
    (indexed / "merged" / "own").touch()
    swap = Swap(str(indexed / "merged"))
    with pytest.raises(RemountFailed, match="Stale"):
        swap.put_in(str(indexed / "fs.checkpoint"))
    swap.put_back()
    assert os.listdir(indexed / "merged") == ["own"]
    assert sorted(os.listdir(indexed)) == ["fs", "lower", "merged", "work"]
