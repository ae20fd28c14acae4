"""Mounts that a killed CRIU leaves in the directory it worked in.

While it restores, CRIU has all cgroup hierarchies mounted there (`.criu.cgyard.*`). Removing such a
directory with what is in it would remove every empty cgroup of the machine.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from agent.host import mountinfo, mounting


def mounts_below(directory: Path) -> list[Path]:
    """Mount points below a directory, innermost first."""
    inside = os.fsencode(directory.resolve()) + b"/"
    points = (mount.point for mount in mountinfo.read())
    found = (Path(os.fsdecode(point)) for point in points if point.startswith(inside))
    return sorted(found, reverse=True)


def detach_below(directory: Path) -> bool:
    """Detach every mount below a directory; whether none is left."""
    for point in mounts_below(directory):
        with contextlib.suppress(OSError):  # it is looked at once more
            mounting.unmount(os.fsencode(point), mounting.MNT_DETACH)
    return not mounts_below(directory)
