"""What every measure needs: sizes, rounds, containers, a place on disk, and equal conditions."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from agent.config import Tools, find_tools
from bench.command import Argument, Finished, run_agent
from bench.runc import Container, RuncRoot, runc_root


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured how often. Sizes in MiB."""

    rounds: int = 5
    codec_rounds: int = 3
    launcher_rounds: int = 20
    container: int = 2048
    peaks: tuple[int, int] = (256, 4096)
    member: int = 256
    unknown: int = 1000
    idle_seconds: int = 30


QUICK = Scale(rounds=2, codec_rounds=1, launcher_rounds=5, container=256, peaks=(64, 512),
              member=64, unknown=100, idle_seconds=5)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Lab:
    """The place of one run of the benchmark."""

    scale: Scale
    runc: RuncRoot
    work: Path
    tools: Tools

    @property
    def store(self) -> Path:
        """Where the agent's checkpoints go: the disk that everything else is written to, too."""
        return self.work / "store"

    def agent(self, *words: Argument) -> tuple[Finished, float]:
        """Run a command of the agent; what it printed, and the seconds it took with its start."""
        began = time.monotonic()
        finished = run_agent([*words, "--state-dir", self.runc.directory / "state"])
        return finished, time.monotonic() - began

    def checkpoint(self, container: Container, *words: Argument) -> tuple[Finished, float]:
        """``checkpoint-agent checkpoint`` a container into the store."""
        return self.agent("checkpoint", container.id, "--runc-root", self.runc.path,
                          "--store", f"file://{self.store}", *words)  # fmt: skip

    def directory(self, name: str) -> Path:
        """An empty directory ``name`` on the measured disk; what was there is removed."""
        path = self.work / name
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
        return path

    def empty_store(self) -> None:
        """Remove the agent's checkpoints."""
        shutil.rmtree(self.store, ignore_errors=True)

    def images(self, name: str) -> Path:
        """An empty images directory with a short path: CRIU connects to a socket in it."""
        path = self.runc.directory / name
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
        return path


@contextlib.contextmanager
def lab(scale: Scale, disk: Path) -> Iterator[Lab]:
    """A lab whose files are below ``disk``; nothing of it is left afterwards."""
    disk.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix="bench-", dir=disk)).absolute()
    try:
        with runc_root() as runc:
            yield Lab(scale, runc, work, find_tools())
    finally:
        shutil.rmtree(work)


def settle(*cold: Path) -> None:
    """Let what earlier steps wrote reach the disk; what lies in ``cold`` is read from there next.

    Only these files leave the page cache: programs stay in it for both sides, as on a machine that
    has run them before.
    """
    os.sync()
    for place in cold:
        for path in [place, *place.rglob("*")]:
            if path.is_file():
                with path.open("rb") as file:
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
