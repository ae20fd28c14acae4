"""What people do without the agent: ``runc checkpoint`` to disk, then ``tar | zstd``; and back."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from agent.host.criu import DumpStats, read_dump_stats
from bench.lab import Lab
from bench.runc import Container


@dataclass(frozen=True, slots=True)
class Archived:
    """One checkpoint made that way. Times in seconds, sizes in bytes."""

    archive: Path
    wall: float
    wall_fsynced: float
    stats: DumpStats
    stored: int


def checkpoint(lab: Lab, container: Container) -> Archived:
    """Dump to a directory and pack it. The directory is removed, the archive stays."""
    images, archive = lab.directory("images"), lab.work / "images.tar.zst"
    archive.unlink(missing_ok=True)
    began = time.monotonic()
    container.checkpoint(images, "--leave-running")
    _pipe(["tar", "-C", images, "-c", "."], ["zstd", "-q", "-1", "-T0", "-o", archive])
    wall = time.monotonic() - began
    with archive.open("rb") as written:
        os.fsync(written.fileno())
    fsynced = time.monotonic() - began
    stats = read_dump_stats((images / "stats-dump").read_bytes())
    shutil.rmtree(images)
    return Archived(archive, wall, fsynced, stats, archive.stat().st_size)


def restore(lab: Lab, container: Container, archive: Path) -> float:
    """Unpack and ``runc restore`` under the same id; the seconds until runc says it runs."""
    images = lab.directory("images")
    began = time.monotonic()
    _pipe(["zstd", "-q", "-d", "-c", archive], ["tar", "-C", images, "-x"])
    container.runc.restore(container.bundle, images, container.id)
    wall = time.monotonic() - began
    shutil.rmtree(images)
    return wall


def _pipe(first: list[str | Path], second: list[str | Path]) -> None:
    """``first | second``; both must succeed."""
    with subprocess.Popen(first, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as source:
        subprocess.run(second, stdin=source.stdout, check=True)
    if source.returncode != 0:
        raise subprocess.CalledProcessError(source.returncode, first)
