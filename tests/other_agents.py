"""Processes of their own that hold operations and locks, to be killed."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cli_process import ROOT


@contextmanager
def child(state_dir: Path, program: str) -> Iterator[subprocess.Popen[str]]:
    """A process that runs ``program`` and then waits; killed with SIGKILL at the end."""
    head = "import sys; from pathlib import Path; from agent.operation.journal import *\n"
    tail = "\nprint('ready', flush=True); sys.stdin.read()"
    process = subprocess.Popen(
        [sys.executable, "-c", f"{head}state = Path(sys.argv[1])\n{program}{tail}", state_dir],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def kill(process: subprocess.Popen[str]) -> None:
    """What no process can prepare for."""
    process.send_signal(signal.SIGKILL)
    process.wait()
