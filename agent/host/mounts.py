"""Mounts that a killed CRIU leaves in the directory it worked in.

While it restores, CRIU has all cgroup hierarchies mounted there (`.criu.cgyard.*`). Removing such a
directory with what is in it would remove every empty cgroup of the machine.
"""

from __future__ import annotations

import ctypes
import os
import re
from pathlib import Path

_MNT_DETACH = 2
_UMOUNT_NOFOLLOW = 8


def mounts_below(directory: Path) -> list[Path]:
    """Mount points below a directory, innermost first."""
    inside = f"{directory.resolve()}/"
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    points = (_unescape(line.split(" ")[4]) for line in lines)
    return sorted((Path(point) for point in points if point.startswith(inside)), reverse=True)


def detach_below(directory: Path) -> bool:
    """Detach every mount below a directory; whether none is left."""
    libc = ctypes.CDLL(None, use_errno=True)
    for point in mounts_below(directory):
        libc.umount2(os.fsencode(point), _MNT_DETACH | _UMOUNT_NOFOLLOW)
    return not mounts_below(directory)


def _unescape(text: str) -> str:
    r"""A path as /proc writes it: blanks, tabs, newlines and backslashes as \040 and so on."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)
