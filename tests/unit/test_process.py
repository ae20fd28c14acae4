"""Facts from /proc about real processes, friendly and odd ones."""

from __future__ import annotations

import inspect
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from agent.host import process
from tests.waiting import PATIENCE, eventually

# More than any kernel gives out.
NOBODY = 1 << 23


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen(["sleep", "1000"])
    yield child
    child.kill()
    child.wait()


@pytest.fixture
def zombie() -> Iterator[int]:
    with subprocess.Popen(["true"]) as child:
        eventually(lambda: (found := process.stat(child.pid)) and found.state == "Z", "a zombie")
        yield child.pid


def test_this_process() -> None:
    found = process.stat(os.getpid())

    assert found is not None
    assert found.state == "R"
    assert found.parent == os.getppid()
    assert found.started > 0


def test_nobody() -> None:
    assert process.stat(NOBODY) is None
    assert not process.is_alive(NOBODY)
    assert process.resident_bytes(NOBODY) == 0
    assert not process.is_kernel_thread(NOBODY)
    assert not process.is_self_or_ancestor(NOBODY)
    process.kill_tree(NOBODY)


@pytest.mark.parametrize("name", ["a) Z 0 (", "two words", ")", "a\nb", "(((("])
def test_names_that_look_like_more_fields(tmp_path: Path, name: str) -> None:
    program = shutil.which("sleep")
    assert program is not None
    shutil.copy(program, tmp_path / name)
    child = subprocess.Popen([tmp_path / name, "1000"])
    try:
        found = process.stat(child.pid)
        assert found is not None
        assert found.parent == os.getpid()
        assert found.state in "SRD"
    finally:
        child.kill()
        child.wait()


def test_alive(sleeper: subprocess.Popen[bytes]) -> None:
    found = process.stat(sleeper.pid)
    assert found is not None

    assert process.is_alive(sleeper.pid)
    assert process.is_alive(sleeper.pid, found.started)
    assert not process.is_alive(sleeper.pid, found.started - 1), "an earlier one of that pid"
    assert not process.is_self_or_ancestor(sleeper.pid)
    assert process.resident_bytes(sleeper.pid) > 4096

    sleeper.kill()
    sleeper.wait()
    assert not process.is_alive(sleeper.pid, found.started)


def test_a_name_that_is_no_text() -> None:
    """Anybody may call himself so, and is not to be in the way of finding everybody else."""
    name = "import ctypes; ctypes.CDLL(None).prctl(15, b'\\xff) Z 1\\r', 0, 0, 0)"
    with subprocess.Popen(
        [sys.executable, "-c", f"{name}; print(flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert process.is_alive(child.pid)
        assert process.leader(child.pid) == child.pid
        child.communicate(b"\n")


def test_processes_far_below_each_other() -> None:
    """Deeper than Python's stack, which is made small here: each of a thousand takes a while."""
    chain = "import os, time\nfor _ in range(100):\n  if os.fork(): break\nelse: print(flush=True)"
    root = subprocess.Popen(
        [sys.executable, "-c", f"{chain}\ntime.sleep(1000)"],
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        assert root.stdout is not None
        root.stdout.readline()
        limit = sys.getrecursionlimit()
        sys.setrecursionlimit(len(inspect.stack()) + 100)
        try:
            assert process.resident_bytes(root.pid) > 100 * 4096
        finally:
            sys.setrecursionlimit(limit)
    finally:
        os.killpg(root.pid, signal.SIGKILL)
        root.communicate()


def test_a_zombie_is_not_alive(zombie: int) -> None:
    assert process.stat(zombie) is not None
    assert not process.is_alive(zombie)


def test_ancestors() -> None:
    assert process.is_self_or_ancestor(os.getpid())
    assert process.is_self_or_ancestor(os.getppid())


def test_programs_are_no_kernel_threads(sleeper: subprocess.Popen[bytes]) -> None:
    assert not process.is_kernel_thread(os.getpid())
    assert not process.is_kernel_thread(sleeper.pid)


def test_a_whole_tree_is_killed() -> None:
    script = "sleep 1000 & sh -c 'sleep 1000 & echo $! $$; wait' & wait"
    with subprocess.Popen(
        ["sh", "-c", script], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as root:
        try:
            assert root.stdout is not None
            below = [int(pid) for pid in root.stdout.readline().split()]
            assert len(below) == 2

            process.kill_tree(root.pid)
            root.wait(PATIENCE)

            eventually(lambda: not any(process.is_alive(pid) for pid in below), "the end of all")
        finally:
            with suppress(ProcessLookupError):
                os.killpg(root.pid, signal.SIGKILL)
