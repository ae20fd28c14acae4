"""One daemon per state directory, whatever has become of the one before."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from agent.daemon.lock import sole_daemon
from agent.errors import AlreadyRunning, StoreFailed
from tests.cli_process import environment

_HOLDER = """
import sys
from pathlib import Path
from agent.daemon.lock import sole_daemon
with sole_daemon(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_the_second_is_refused_and_told_who_is_first(tmp_path: Path) -> None:
    with (
        sole_daemon(tmp_path / "state"),
        pytest.raises(AlreadyRunning) as refused,
        sole_daemon(tmp_path / "state"),
    ):
        pass
    assert refused.value.owner_pid == os.getpid()
    assert str(tmp_path / "state") in str(refused.value)


def test_the_next_one_is_welcome(tmp_path: Path) -> None:
    for _ in range(2):
        with sole_daemon(tmp_path):
            pass


def test_daemons_of_other_directories_do_not_matter(tmp_path: Path) -> None:
    with sole_daemon(tmp_path / "a"), sole_daemon(tmp_path / "b"):
        pass


def test_a_killed_daemon_leaves_no_lock(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment(),
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(AlreadyRunning, match=str(holder.pid)), sole_daemon(tmp_path):
            pass
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with sole_daemon(tmp_path):
        pass


def test_a_directory_that_cannot_be_is_an_error_with_a_name(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(StoreFailed, match=r"daemon\.lock"),
        sole_daemon(tmp_path / "file" / "state"),
    ):
        pass
