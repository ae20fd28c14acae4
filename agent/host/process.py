"""Facts about processes from /proc.

A process gives itself its name, in whatever bytes it likes: what is read here may not be text.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True, slots=True)
class ProcessStat:
    """State letter, parent, and start time in clock ticks since boot.

    The last one tells a process from a later one with the same pid.
    """

    state: str
    parent: int
    started: int


def stat(pid: int) -> ProcessStat | None:
    """Facts about a process, None when there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name is in parentheses and may contain anything, so split after the last one. (proc(5))
    parts = text.rpartition(")")[2].split()
    return ProcessStat(state=parts[0], parent=int(parts[1]), started=int(parts[19]))


def is_taken(pid: int) -> bool:
    """Whether a restored process could not get this pid: it is a process, a group or a session.

    A child that has ended but was not waited for yet keeps its leader's pid taken as a session.
    """
    for each in psutil.pids():
        with contextlib.suppress(ProcessLookupError):
            if pid in (each, os.getpgid(each), os.getsid(each)):
                return True
    return False


def is_alive(pid: int, started: int | None = None) -> bool:
    """Whether the process exists, is no zombie, and is the one that started then."""
    found = stat(pid)
    return found is not None and found.state not in "ZX" and started in (None, found.started)


def is_self_or_ancestor(pid: int) -> bool:
    """Whether this process is ``pid`` or below it: a process cannot freeze itself."""
    at = os.getpid()
    while at > 0:
        if at == pid:
            return True
        found = stat(at)
        at = found.parent if found else 0
    return False


def resident_bytes(pid: int) -> int:
    """Resident memory of a process and everything below it; what has ended counts nothing."""
    pages, pids = 0, [pid]
    # Not a call in a call: a chain of a thousand processes is easily made.
    for each in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            pages += int(Path(f"/proc/{each}/statm").read_text().split()[1])
            pids += map(int, Path(f"/proc/{each}/task/{each}/children").read_text().split())
    return pages * os.sysconf("SC_PAGE_SIZE")


def leader(pid: int) -> int:
    """The process that a thread belongs to; 0 when there is none."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return int(status.partition("\nTgid:")[2].split()[0])


def is_kernel_thread(pid: int) -> bool:
    """Whether the process has no memory of its own."""
    try:
        return not Path(f"/proc/{pid}/maps").read_bytes()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        # Root may read those of kernel threads; of a process with more rights than it, it may not.
        return False


def namespace(pid: int, kind: str) -> int | None:
    """The number of a namespace that a process is in; None when the process is gone.

    Args:
        kind: as /proc has it: ``mnt``, ``net``, ``user``.
    """
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return os.stat(f"/proc/{pid}/ns/{kind}").st_ino
    return None


def tree(pid: int) -> list[int]:
    """A process and everything below it, as far as it still exists."""
    with contextlib.suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        return [each.pid for each in (root, *root.children(recursive=True))]
    return []


def kill_tree(pid: int) -> None:
    """Kill a process and everything below it, as far as it still exists."""
    with contextlib.suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        for each in [root, *root.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
