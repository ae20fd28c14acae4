"""What NVIDIA's runtime hook mounts in a container behind the back of runc, as a dump sees it.

Its older way (nvidia-container-cli, a hook at start) binds files of the driver, device nodes and
parts of /proc/driver/nvidia from this machine into the container. CRIU only takes a mount from
outside along when it is told of it, and where it comes from again. Its newer way (CDI) edits the
container's configuration instead, and runc knows all of it. injecting.py brings both back.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from agent.host import mountinfo

# In CRIU's images, before a path of the machine that the checkpoint was taken on.
KEY: Final = "nvidia:"

# File names of the driver: libraries, programs, device nodes, sockets, firmware's directory.
_DRIVER: Final = re.compile(
    r"/([\d_]*nvidia|lib[\w-]*nvidia|libcuda(debugger)?\.so|libnv(cuvid|optix)\.so)[^/]*(/.*)?"
)
# What would end a name, or a quoted one, where CRIU reads it.
_UNSPEAKABLE: Final = re.compile(r'[]"\\\n]')


@dataclass(frozen=True, slots=True)
class Injected:
    """A mount from outside: where it is in the container, and what it shows of this machine."""

    point: str
    source: str


def is_of_driver(path: str) -> bool:
    """Whether a path may be a file, directory or device node of NVIDIA's driver, by its name."""
    plain = os.path.normpath(path) == path and not _UNSPEAKABLE.search(path)
    return plain and _DRIVER.search(path) is not None


def mounts_of(config: Mapping[str, Any]) -> dict[str, str]:
    """Sources of a configuration's mounts, by where they are in the container."""
    mounts = [mount for mount in config.get("mounts") or () if isinstance(mount, dict)]
    return {
        os.path.normpath(str(mount.get("destination"))): str(mount.get("source", ""))
        for mount in mounts
    }


def find_injected(pid: int, config: Mapping[str, Any]) -> list[Injected]:
    """What of the driver is mounted in a container and is not in its configuration.

    Something whose place on this machine cannot be found is left out; CRIU refuses it. None for a
    process that has just ended.
    """
    try:
        inside = mountinfo.read(f"/proc/{pid}/mountinfo")
    except OSError:
        return []
    known = mounts_of(config)
    whole = {mount.device for mount in inside if mount.root == b"/"}
    outside = mountinfo.read()
    found = []
    for mount in inside:
        point = os.fsdecode(mount.point)
        if mount.device in whole or point in known or not is_of_driver(point):
            continue
        source = _source(mount, f"/proc/{pid}/root{point}", outside)
        if source is not None:
            found.append(Injected(point, source))
    return found


def dump_words(injected: Sequence[Injected]) -> list[str]:
    """Options of CRIU, for a dump that is to leave these mounts to whoever restores."""
    words: list[str] = []
    for each in injected:
        words += ["--external", f"mnt[{each.point}]:{KEY}{each.source}"]
    # Where the machine's own mounts are shared, as systemd has them, these are their slaves.
    return [*words, "--enable-external-masters"] if words else []


def _source(mount: mountinfo.Mount, seen: str, outside: Sequence[mountinfo.Mount]) -> str | None:
    """The path by which this machine has the same file; None when it has none."""
    for other in reversed(outside):
        inner = os.path.relpath(mount.root, other.root)
        if other.device != mount.device or inner.startswith(b".."):
            continue
        path = os.fsdecode(os.path.normpath(os.path.join(other.point, inner)))
        try:
            # It may be hidden by another mount.
            if os.path.samestat(os.lstat(path), os.lstat(seen)) and is_of_driver(path):
                return path
        except OSError:
            continue
    return None
