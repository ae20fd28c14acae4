"""Directories of any depth are emptied, and nothing else is touched."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from agent.host import aside, emptying
from tests.waiting import descriptors, opened_since

# Python calls itself a thousand times at most.
DEPTH = 1500


def _deep(directory: Path) -> None:
    """Folders in each other, beyond the longest path; each with a file in it."""
    directory.mkdir(exist_ok=True)
    at = os.open(directory, os.O_RDONLY)
    for _ in range(DEPTH):
        os.close(os.open("file", os.O_CREAT, dir_fd=at))
        os.mkdir("d", dir_fd=at)
        below = os.open("d", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    os.close(at)


def test_a_deep_one(tmp_path: Path) -> None:
    before = descriptors()
    _deep(tmp_path / "it")
    emptying.remove(tmp_path / "it")
    assert os.listdir(tmp_path) == []
    assert opened_since(before) == {}


def test_links_are_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (outside / "below").mkdir(parents=True)
    it = tmp_path / "it"
    (it / "a" / "b").mkdir(parents=True)
    (it / "a" / "b" / "link").symlink_to(outside)
    (it / "link").symlink_to(outside)
    emptying.remove(it)
    assert os.listdir(tmp_path) == ["outside"]
    (tmp_path / "link").symlink_to(outside)
    emptying.remove(tmp_path / "link")
    emptying.remove(tmp_path / "not there")
    assert (outside / "below").exists()


def test_two_empty_the_same(tmp_path: Path) -> None:
    """As containers do that run, with what is in their volume."""
    for _ in range(3):
        for name in range(100):
            (tmp_path / str(name) / "below").mkdir(parents=True)
            (tmp_path / str(name) / "file").touch()
        others = [os.open(tmp_path, emptying.DIRECTORY) for _ in range(2)]
        try:
            with ThreadPoolExecutor(2) as pool:
                list(pool.map(emptying.empty, others))
        finally:
            for each in others:
                os.close(each)
        for left in os.listdir(tmp_path):
            # What one has moved up after the other has looked.
            emptying.remove(tmp_path / left)
        assert os.listdir(tmp_path) == []


def test_a_volume_that_is_deep_comes_back(tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    (volume / "old").write_text("old")
    aside.put(volume)
    _deep(volume)
    aside.put_back(volume)
    assert os.listdir(volume) == ["old"]


def test_a_deep_one_that_was_aside_is_forgotten(tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    _deep(volume)
    aside.put(volume)
    (volume / "new").write_text("new")
    aside.forget(volume)
    assert os.listdir(volume) == ["new"]
