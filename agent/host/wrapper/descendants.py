"""All that this process has started, also what its children have left behind."""

from __future__ import annotations

import contextlib
import ctypes
import os
import time

_PR_SET_CHILD_SUBREAPER = 36
_SIGKILL = 9
# Also children whose end is announced with another signal than SIGCHLD.
_WALL = 0x40000000

# Seconds for killed processes to be gone. They are in milliseconds; one that waits for a device may
# never be, and is not ours to wait for.
_PATIENCE = 10.0


def adopt(orphans: bool) -> None:
    """Be the parent of whatever a killed runc or CRIU leaves, or stop being that."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, int(orphans), 0, 0, 0)


def kill_all() -> None:
    """Kill them all, and see them gone."""
    deadline = time.monotonic() + _PATIENCE
    while _children(os.getpid()) and time.monotonic() < deadline:
        for pid in _below(os.getpid()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, _SIGKILL)
        _reap()
        time.sleep(0.002)


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG | _WALL)[0]:
            pass
    except ChildProcessError:
        pass


def _below(pid: int) -> list[int]:
    """Every process below one, parents first: who is killed starts no other."""
    found = _children(pid)
    # Not a call in a call: a chain of a thousand processes is easily made.
    for each in found:
        found += _children(each)
    return found


def _children(pid: int) -> list[int]:
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as listed:
            return [int(child) for child in listed.read().split()]
    except OSError:
        return []
