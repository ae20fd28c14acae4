"""Device nodes of a container as its configuration has them.

CRIU brings the nodes of the checkpoint back. On another machine, or after a reboot, the numbers of
/dev/nvidia-uvm are others; and a container that was given another GPU has a node of another name.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any, Final

_KINDS: Final = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK}


def renew(pid: int, config: Mapping[str, Any]) -> None:
    """Make the nodes of ``linux.devices`` below /dev what they are to be.

    What is there and is no device node is left alone: the container has put it there. So is what is
    in a directory of the machine's that is mounted there, as /dev is in many a privileged pod.

    Args:
        pid: a process of the container, which may run, and may do anything with its /dev meanwhile.

    Raises:
        OSError
    """
    linux = config.get("linux") or {}
    bound = [
        os.path.normpath(mount["destination"])
        for mount in config.get("mounts") or ()
        if mount.get("type") == "bind" or {"bind", "rbind"} & set(mount.get("options") or ())
    ]
    for device in linux.get("devices") or ():
        path = PurePosixPath(device["path"])
        if device.get("type") not in _KINDS or ".." in path.parts:
            continue
        if path.is_relative_to("/dev") and not any(map(path.is_relative_to, bound)):
            _renew(pid, path, device)


def _renew(pid: int, path: PurePosixPath, device: Mapping[str, Any]) -> None:
    kind = _KINDS[device["type"]]
    number = os.makedev(int(device.get("major", 0)), int(device.get("minor", 0)))
    with _directory(pid, path.parent) as parent:
        try:
            found = os.stat(path.name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            pass
        else:
            there = stat.S_IFMT(found.st_mode)
            if there not in (stat.S_IFCHR, stat.S_IFBLK):
                return
            if (there, found.st_rdev) == (kind, number):
                return
            try:
                os.unlink(path.name, dir_fd=parent)
            except OSError:  # a mount: CRIU has put the machine's own there
                return
        os.mknod(path.name, kind | 0o600, number, dir_fd=parent)
        made = os.open(path.name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            # Not by its name again: it may be a link to something of the machine's by now.
            if os.fstat(made).st_rdev == number:
                itself = f"/proc/self/fd/{made}"
                os.chown(itself, int(device.get("uid") or 0), int(device.get("gid") or 0))
                os.chmod(itself, int(device.get("fileMode") or 0o666))
        finally:
            os.close(made)


@contextlib.contextmanager
def _directory(pid: int, path: PurePosixPath) -> Iterator[int]:
    """A directory of the container, made where it is missing; no link leads out of it."""
    flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
    current = os.open(f"/proc/{pid}/root", flags)
    try:
        for part in path.parts[1:]:
            with contextlib.suppress(FileExistsError):
                os.mkdir(part, 0o755, dir_fd=current)
            inner = os.open(part, flags | os.O_NOFOLLOW, dir_fd=current)
            os.close(current)
            current = inner
        yield current
    finally:
        os.close(current)
