"""The writable layer of a container: the upper directory of the overlay that is its root.

The kernel says where it is, in the mount table. Snapshotters keep databases of their own, but those
differ, and are locked while they run.
"""

from __future__ import annotations

import os
from pathlib import Path

from agent.errors import BundleInvalid
from agent.host.layers import is_relative, storage_of, unquoted
from agent.host.mountinfo import read, topmost
from agent.host.runc import read_config


def writable_layer(bundle: Path, pid: int) -> Path | None:
    """Where the changes lie that a container has made to its root filesystem.

    Looked for where this process sees the bundle's root mounted, and else in the mount table of
    ``pid``, the container's first process: an agent in a container of its own may see the layers
    and not the mount. Not of a process in a user namespace of its own: there anybody may have put
    an overlay over its root, with the name of a directory that is another one on this machine.

    Returns:
        The overlay's upper directory as it is reached from here; None when the root is no overlay,
        a read-only one, or its upper directory cannot be reached.
    """
    root = root_of(bundle)
    upper = _upper(root, Path("/proc/self/mountinfo")) if root else None
    if upper is None and _shares_users(pid):
        upper = _upper(Path("/"), Path(f"/proc/{pid}/mountinfo"))
    return upper


def _shares_users(pid: int) -> bool:
    """Whether a process is in this one's user namespace."""
    try:
        return os.path.samefile(f"/proc/{pid}/ns/user", "/proc/self/ns/user")
    except OSError:  # it is gone
        return False


def root_of(bundle: Path) -> Path | None:
    """Where a bundle says its root filesystem is, with links followed as the kernel has.

    None when it does not say.
    """
    try:
        root = read_config(bundle)["root"]
    except BundleInvalid:
        return None
    named = root.get("path") if isinstance(root, dict) else None
    # os.path.realpath, unlike Path.resolve, does not raise on links in a circle.
    return Path(os.path.realpath(bundle / named)) if isinstance(named, str) else None


def _upper(point: Path, table: Path) -> Path | None:
    """The upper directory of the overlay at a mount point, if there is one that can be reached.

    A directory of an overlay that is bind-mounted there does not count: its upper directory would
    be that of the whole, a machine's perhaps that is a container itself.
    """
    try:
        mount = topmost(os.fsencode(point), read(str(table)))
    except OSError:
        return None
    named = mount.option(b"upperdir") if mount and mount.root == b"/" else None
    if mount is None or not named:
        return None
    upper = unquoted(named)
    if is_relative(upper) and point != Path("/"):
        upper = os.path.join(storage_of(mount), upper)
    return None if is_relative(upper) or not os.path.isdir(upper) else Path(os.fsdecode(upper))
