"""Reads small JSON files that others wrote, whatever they turn out to be."""

from __future__ import annotations

import json
import os
from pathlib import Path

# A container's state.json has about 10 KiB and its config.json 20; a pod with hundreds of
# annotations and volumes does not reach one MiB. What is cut off here is no JSON any more.
MAX_BYTES = 4 << 20

# How many files' contents are kept. A node has 110 pods by default, and few containers in each.
REMEMBERED = 4096

# Inode, modification time and size: what changes when a file does. A file replaced within a tick
# of the clock by one of the same size still has another inode.
Stamp = tuple[int, int, int]


def stamp_of(path: Path) -> Stamp | None:
    """What tells a file from the one that was there before; None when there is none."""
    try:
        facts = os.lstat(path)
    except (OSError, ValueError):
        return None
    return facts.st_ino, facts.st_mtime_ns, facts.st_size


def read_object(path: Path) -> dict[str, object] | None:
    """A JSON object in a file; None when it is anything else, too big, or gone.

    The last part of the path is not followed if it is a link, and a FIFO does not hang.
    """
    try:
        with open(path, "rb", opener=_opened) as file:
            found = json.loads(file.read(MAX_BYTES))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _opened(path: str, _flags: int) -> int:
    # An opener, because open() closes what it has from one when that is a directory, and leaves a
    # descriptor that it was given open.
    return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
