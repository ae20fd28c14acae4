"""Process trees without a container: workloads in sessions of their own, nothing to write to."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench.bundle import Workload
from bench.programs import program
from bench.reports import Report, wait_until


@dataclass(frozen=True, slots=True)
class Tree:
    """A workload started by this process; after a restore it is nobody's child but has its pid."""

    process: subprocess.Popen[bytes]
    report: Report

    @property
    def pid(self) -> int:
        """Its root."""
        return self.process.pid

    def reap(self) -> None:
        """Wait for its end: until then its pid is taken by a zombie."""
        self.process.wait(timeout=30)

    def kill(self) -> None:
        """Kill all of it and reap the root."""
        kill_all(str(self.report.path))
        self.reap()


def processes(words: str) -> list[psutil.Process]:
    """Processes, no zombies, that have ``words`` on their command line."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess):
            if words in " ".join(process.cmdline()) and process.pid != os.getpid():
                found.append(process)
    return found


def kill_all(words: str) -> None:
    """Kill every process with ``words``, a path of the test's own, on its command line."""
    for process in processes(words):
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
    wait_until(lambda: not processes(words), f"processes of {words} ending")


@contextmanager
def started_tree(directory: Path, workload: Workload, *before: str) -> Iterator[Tree]:
    """The workload, up and ready; nothing of it is left when the block ends.

    Args:
        before: a command that becomes it.
    """
    report = Report(directory / f"report-{workload.name}")
    # A new session, and nothing of this process's terminal or pipes: CRIU takes it as it is.
    process = subprocess.Popen(
        [*before, program(workload.name), report.path, *workload.arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=directory,
        start_new_session=True,
    )
    tree = Tree(process, report)
    try:
        report.wait_ready()
        yield tree
    finally:
        tree.kill()
