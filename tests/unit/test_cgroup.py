"""The freezer of both cgroup versions, on real cgroups with a real process."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.host import cgroup
from agent.host.cgroup import Freezer, freezer
from tests.cgroups import Echo, echo
from tests.waiting import eventually


@pytest.fixture(params=[1, 2], ids=["v1", "v2"])
def task(request: pytest.FixtureRequest) -> Iterator[Echo]:
    with echo(request.param) as made:
        yield made


@pytest.mark.root
def test_freeze_and_thaw(task: Echo) -> None:
    assert task.freezer.exists()
    assert not task.freezer.is_frozen()
    assert task.runs()

    task.freezer.freeze()
    assert task.freezer.is_frozen()
    assert not task.runs()
    task.freezer.freeze()
    assert task.freezer.is_frozen()

    task.freezer.thaw()
    assert not task.freezer.is_frozen()
    assert task.runs()
    task.freezer.thaw()


@pytest.mark.root
def test_a_cgroup_without_tasks(task: Echo) -> None:
    task.end()

    task.freezer.freeze()
    assert task.freezer.is_frozen()
    task.freezer.thaw()
    assert not task.freezer.is_frozen()


@pytest.mark.parametrize("version", [1, 2])
def test_a_cgroup_that_is_gone(tmp_path: Path, version: int) -> None:
    gone = Freezer(tmp_path / "gone", version)

    assert not gone.exists()
    assert not gone.is_frozen()
    gone.thaw()
    with pytest.raises(FileNotFoundError):
        gone.freeze()


def test_a_task_that_cannot_be_frozen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One in an uninterruptible system call: what the kernel then shows, as plain files."""
    (tmp_path / "cgroup.freeze").write_text("0")
    (tmp_path / "cgroup.events").write_text("populated 1\nfrozen 0\n")
    monkeypatch.setattr(cgroup, "FREEZE_TIMEOUT", 0.01)
    stuck = Freezer(tmp_path, 2)

    with pytest.raises(TimeoutError, match="did not freeze"):
        stuck.freeze()

    assert stuck.is_frozen(), "it has been told to freeze and has to be thawed"


@pytest.mark.parametrize("state", ["FROZEN\n", "FREEZING\n"])
def test_freezing_counts_as_frozen(tmp_path: Path, state: str) -> None:
    (tmp_path / "freezer.state").write_text(state)

    assert Freezer(tmp_path, 1).is_frozen()


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        ({}, None),
        ({"memory": "/m"}, None),
        ({"freezer": ""}, None),
        ({"": ""}, None),
        ({"freezer": "/f", "memory": "/m"}, Freezer(Path("/f"), 1)),
        ({"": "/u"}, Freezer(Path("/u"), 2)),
        ({"": "/u", "freezer": "/f"}, Freezer(Path("/f"), 1)),
    ],
)
def test_the_freezer_among_runc_s_paths(paths: dict[str, str], expected: Freezer | None) -> None:
    assert freezer(paths) == expected


@pytest.mark.root
def test_processes_of_threaded_cgroups() -> None:
    """Asked for those, the kernel says that it does not support it; they are listed above."""
    with echo(2) as task:
        inner = task.freezer.path / "inner"
        inner.mkdir()
        try:
            (inner / "cgroup.type").write_text("threaded")
            (inner / "cgroup.threads").write_text(str(task.pid))
            with pytest.raises(OSError, match="not supported"):
                (inner / "cgroup.procs").read_text()
            assert task.freezer.pids() == [task.pid]
        finally:
            task.end()
            eventually(lambda: not (inner / "cgroup.threads").read_text(), "its end")
            inner.rmdir()


def test_processes_of_cgroups_far_below_each_other(tmp_path: Path) -> None:
    """Deeper than Python's stack, and than a path may be long."""
    here = os.open(tmp_path, os.O_RDONLY)
    for pid in range(1, 1100):
        descriptor = os.open("cgroup.procs", os.O_WRONLY | os.O_CREAT, dir_fd=here)
        os.write(descriptor, b"%d\n" % pid)
        os.close(descriptor)
        os.mkdir("ccc", dir_fd=here)
        here, above = os.open("ccc", os.O_RDONLY, dir_fd=here), here
        os.close(above)
    os.close(here)
    found = Freezer(tmp_path, 2).pids()
    assert found == list(range(1, len(found) + 1))
    assert 1100 > len(found) > 900
    subprocess.run(["rm", "-r", tmp_path / "ccc"], check=True)


def test_processes_of_cgroups_that_a_container_has_made(tmp_path: Path) -> None:
    (tmp_path / "inner" / "most").mkdir(parents=True)
    for directory, pids in ((tmp_path, "7\n8\n"), (tmp_path / "inner" / "most", "9\n")):
        (directory / "cgroup.procs").write_text(pids)
    assert sorted(Freezer(tmp_path, 2).pids()) == [7, 8, 9]
    assert Freezer(tmp_path / "gone", 2).pids() == []
