"""Takes away what runc leaves when an operation on a container was cut short."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

from bench.reports import wait_until

CGROUPS = Path("/sys/fs/cgroup")


def cgroup_paths(name: str) -> list[Path]:
    """Where the cgroup ``name`` is: one directory on cgroup v2, one per controller on v1."""
    candidates = [CGROUPS / name, *(entry / name for entry in CGROUPS.iterdir() if entry.is_dir())]
    return [path for path in candidates if path.is_dir() and not path.parent.is_symlink()]


def clear_cgroup(name: str) -> None:
    """Thaw, kill and reap whatever is in the cgroup ``name``, then remove it."""
    for path in cgroup_paths(name):
        for control, thawed in (("freezer.state", "THAWED"), ("cgroup.freeze", "0")):
            if (path / control).exists():
                (path / control).write_text(thawed)
    for path in cgroup_paths(name):
        wait_until(lambda path=path: _empty(path), f"{path} getting empty")  # type: ignore[misc]
        path.rmdir()


def _empty(path: Path) -> bool:
    """Kill what is in it; true once nothing is."""
    pids = [int(line) for line in (path / "cgroup.procs").read_text().split()]
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    return not pids


def mounts_below(directory: Path) -> Iterator[str]:
    """Mount points below ``directory``, innermost first."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    points = [line.split()[4] for line in lines]
    yield from sorted((p for p in points if p.startswith(f"{directory}/")), reverse=True)


def unmount_below(directory: Path) -> None:
    """Detach every mount below ``directory``."""
    for point in mounts_below(directory):
        subprocess.run(["umount", "--lazy", point], capture_output=True, check=False)
