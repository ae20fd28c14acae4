"""`make demo`, as a program: it goes the whole way, and leaves a checkpoint and nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench.reports import PATIENCE
from tests.cli_process import ROOT, run_cli
from tests.integration.trees import kill_all, processes

pytestmark = [pytest.mark.root, pytest.mark.criu, pytest.mark.slow]


@contextmanager
def demo(directory: Path) -> Iterator[subprocess.Popen[str]]:
    """The demo, started in a directory, with all that it makes below it."""
    made = directory / "tmp"
    made.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.demo"],
        cwd=directory,
        env=os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(made)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()
        kill_all(f"{made}/")


def test_the_whole_way(tmp_path: Path) -> None:
    with demo(tmp_path) as process:
        said, _ = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, said
        assert "unchanged" in said
        # What is shown can be pasted, and has no secret in it.
        assert '-H "Authorization: Bearer $TOKEN"' in said
        assert "cpa_" not in said
        assert os.listdir(tmp_path / "tmp") == []
        assert processes(f"{tmp_path}/") == []
    [checkpoint] = (tmp_path / "var" / "checkpoints").iterdir()
    assert f"verify file://{checkpoint}" in said
    assert run_cli("verify", str(checkpoint)).returncode == 0


def test_ctrl_c_leaves_nothing(tmp_path: Path) -> None:
    with demo(tmp_path) as process:
        assert process.stdout is not None
        for line in process.stdout:
            # The checkpoint has begun.
            if "/events" in line:
                process.send_signal(signal.SIGINT)
                break
        said, _ = process.communicate(timeout=PATIENCE)
        assert process.returncode == 130, said
        assert "nothing was left behind" in said
        assert os.listdir(tmp_path / "tmp") == []
        assert processes(f"{tmp_path}/") == []
