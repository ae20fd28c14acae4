"""A file by which a node is drained, whatever it is and however old."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from agent.drain import Notice
from agent.drain.file import FileSource
from tests.waiting import descriptors, eventually_async, opened_since


async def notice_of(path: Path) -> Notice:
    """What is told of a file that is there."""
    heard: list[Notice | None] = []

    def tell(notice: Notice | None) -> asyncio.Event:
        heard.append(notice)
        return asyncio.Event()

    before = descriptors()
    watching = asyncio.create_task(FileSource(path).watch(tell))
    await eventually_async(lambda: bool(heard), "the notice")
    assert not watching.done()
    assert opened_since(before) == {}
    watching.cancel()
    await asyncio.wait({watching})
    (notice,) = heard
    assert notice is not None
    assert notice.reason == f"{path} appeared"
    return notice


@pytest.mark.parametrize("kind", ["pipe", "directory", "nonsense", "empty"])
async def test_it_is_a_notice_whatever_it_is(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "drain"
    writer = -1
    if kind == "pipe":
        os.mkfifo(path)
        writer = os.open(path, os.O_RDWR)
    elif kind == "directory":
        path.mkdir()
    else:
        path.write_bytes(b"\xff soon" if kind == "nonsense" else b"")
    assert (await notice_of(path)).seconds is None
    if writer >= 0:
        os.close(writer)


@pytest.mark.parametrize(
    ("age", "least", "most"),
    [(0.0, 3000.0, 3600.0), (3000.0, 300.0, 600.0), (4000.0, 0.0, 0.0), (-4000.0, 3600.0, 3600.0)],
)
async def test_what_it_says_counts_from_when_it_was_written(
    tmp_path: Path, age: float, least: float, most: float
) -> None:
    path = tmp_path / "drain"
    path.write_text("1h\n")
    written = time.time() - age
    os.utime(path, (written, written))
    seconds = (await notice_of(path)).seconds
    assert seconds is not None
    assert least <= seconds <= most
