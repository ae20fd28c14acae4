"""One at a time may work on a container, however it ends."""

from __future__ import annotations

import os
import resource
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from agent.errors import TargetBusy
from agent.operation.locks import exclusive
from tests.other_agents import child, kill
from tests.waiting import descriptors, opened_since

HOLD = "lock = exclusive(state, 'web'); lock.__enter__()"


def test_one_at_a_time(tmp_path: Path) -> None:
    before = descriptors()
    with exclusive(tmp_path, "web"):
        with pytest.raises(TargetBusy) as caught, exclusive(tmp_path, "web"):
            pass
        with exclusive(tmp_path, "another"):
            pass
    with exclusive(tmp_path, "web"):
        pass

    assert (caught.value.target, caught.value.owner_pid) == ("web", os.getpid())
    assert opened_since(before) == {}


def test_a_lock_is_gone_with_its_holder(tmp_path: Path) -> None:
    with child(tmp_path, HOLD) as other:
        with pytest.raises(TargetBusy) as caught, exclusive(tmp_path, "web"):
            pass
        assert caught.value.owner_pid == other.pid

        kill(other)

        with exclusive(tmp_path, "web"):
            pass


def test_a_lock_is_given_back_whatever_happens(tmp_path: Path) -> None:
    with pytest.raises(KeyError), exclusive(tmp_path, "web"):
        raise KeyError
    with exclusive(tmp_path, "web"):
        pass


@pytest.mark.parametrize("target", ["../../etc/passwd", "a/b", "", "x" * 5000, "\0", "ü"])
def test_targets_of_any_name(tmp_path: Path, target: str) -> None:
    with exclusive(tmp_path, target):
        assert [len(path.name) for path in (tmp_path / "locks").iterdir()] == [32]


def test_no_file_is_left_of_a_lock(tmp_path: Path) -> None:
    """A node has thousands of containers in its life."""
    with exclusive(tmp_path, "web"):
        pass
    assert list((tmp_path / "locks").iterdir()) == []


def test_a_lock_whose_file_stays(tmp_path: Path) -> None:
    """On a disk that has become read-only, for one. Nobody holds it for ever."""
    before = descriptors()
    with exclusive(tmp_path, "web"):
        [path] = (tmp_path / "locks").iterdir()
        path.unlink()
        path.mkdir()
    assert opened_since(before) == {}
    assert path.is_dir()


def test_a_lock_on_a_full_disk(tmp_path: Path) -> None:
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limit[1]))
    try:
        with exclusive(tmp_path, "web"), pytest.raises(TargetBusy), exclusive(tmp_path, "web"):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)


def test_only_one_of_many_has_it(tmp_path: Path) -> None:
    """Also while the file goes and comes back."""
    inside, counted, seen = 0, 0, set()

    def work() -> None:
        nonlocal inside, counted
        for _ in range(300):
            with suppress(TargetBusy), exclusive(tmp_path, "web"):
                inside += 1
                seen.add(inside)
                counted += 1
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == {1}
    assert counted > 0
