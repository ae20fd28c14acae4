"""The writable layer of a container: the upper directory of the overlay that is its root.

The kernel says where it is, in the mount table. Snapshotters keep databases of their own, but those
differ, and are locked while they run.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from agent.errors import BundleInvalid
from agent.host.runc import read_config


def writable_layer(bundle: Path, pid: int) -> Path | None:
    """Where the changes lie that a container has made to its root filesystem.

    Looked for where this process sees the bundle's root mounted, and else in the mount table of
    ``pid``, the container's first process: an agent in a container of its own may see the layers
    and not the mount.

    Returns:
        The overlay's upper directory as it is reached from here; None when the root is no overlay,
        a read-only one, or its upper directory cannot be reached.
    """
    root = _root_of(bundle)
    upper = _upper(root, Path("/proc/self/mountinfo")) if root else None
    return upper or _upper(Path("/"), Path(f"/proc/{pid}/mountinfo"))


def _root_of(bundle: Path) -> Path | None:
    """Where the bundle says its root filesystem is, with links followed as the kernel has."""
    try:
        root = read_config(bundle)["root"]
    except BundleInvalid:
        return None
    named = root.get("path") if isinstance(root, dict) else None
    # os.path.realpath, unlike Path.resolve, does not raise on links in a circle.
    return Path(os.path.realpath(bundle / named)) if isinstance(named, str) else None


def _upper(point: Path, table: Path) -> Path | None:
    """The upper directory of the overlay at a mount point, if there is one that can be reached."""
    named = _super_options(point, table).get(b"upperdir")
    if not named:
        return None
    upper = Path(os.fsdecode(_unquote(_unescape(named))))
    # With so many layers that the options would not fit a page, CRI-O mounts from its own
    # directory: `overlay/ID/merged`, with an upper directory `ID/diff`.
    if not upper.is_absolute() and point != Path("/"):
        upper = point.parent.parent / upper
    return upper if upper.is_absolute() and upper.is_dir() else None


def _super_options(point: Path, table: Path) -> dict[bytes, bytes]:
    """The options, escaped, of the file system whose root is at a mount point.

    A directory of an overlay that is bind-mounted there does not count: its upper directory would
    be that of the whole, a machine's perhaps that is a container itself.
    """
    try:
        lines = table.read_bytes().splitlines()
    except OSError:
        return {}
    wanted = os.fsencode(point)
    for line in reversed(lines):  # later ones lie over earlier ones
        fields = line.split(b" ")
        if len(fields) > 4 and _unescape(fields[4]) == wanted:
            # "36 35 0:40 / POINT rw shared:1 - overlay overlay rw,lowerdir=...,upperdir=..."
            if fields[3] != b"/":
                return {}
            options = line.partition(b" - ")[2].split(b" ", 2)[-1]
            return dict(option.partition(b"=")[::2] for option in options.split(b","))
    return {}


def _unescape(text: bytes) -> bytes:
    r"""A path as /proc writes it: blanks, commas, backslashes and so on as \040, \054, \134."""
    return re.sub(rb"\\([0-7]{3})", lambda found: bytes([int(found[1], 8) & 0xFF]), text)


def _unquote(path: bytes) -> bytes:
    r"""A path as overlay itself takes it: commas and colons as \, and \:."""
    return re.sub(rb"\\(.)", rb"\1", path, flags=re.DOTALL)
