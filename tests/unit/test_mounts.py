"""The machine's table of mounts, in which anybody who has a volume may have put odd names."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.host import mountinfo, mounting
from agent.host.mounts import detach_below, mounts_below

pytestmark = pytest.mark.root

NAMES = [b"two words", b"n\nl", b"c\rr", b"v\x0bt", b"\xe2\x80\xa8", b"\xff\xfe", b"b\\ack"]


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[bytes]:
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    at = os.fsencode(tmp_path / "state")
    os.mkdir(at)
    mounting.mount(b"tmpfs", at, b"tmpfs", 0)
    try:
        yield at
    finally:
        mounting.unmount(at, mounting.MNT_DETACH)


@pytest.mark.parametrize("name", NAMES)
def test_names(directory: bytes, name: bytes) -> None:
    point = os.path.join(directory, name)
    os.mkdir(point)
    mounting.mount(b"tmpfs", point, b"tmpfs", 0)
    assert [mount.point for mount in mountinfo.read()][-1] == point
    assert mounts_below(Path(os.fsdecode(directory))) == [Path(os.fsdecode(point))]
    assert detach_below(Path(os.fsdecode(directory)))
    assert mounts_below(Path(os.fsdecode(directory))) == []


def test_innermost_first(directory: bytes) -> None:
    for point in (b"a", b"a/b", b"a/b"):
        os.makedirs(os.path.join(directory, point), exist_ok=True)
        mounting.mount(b"tmpfs", os.path.join(directory, point), b"tmpfs", 0)
    state = Path(os.fsdecode(directory))
    assert mounts_below(state) == [state / "a/b", state / "a/b", state / "a"]
    assert detach_below(state)
