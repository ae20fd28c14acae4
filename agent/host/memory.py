"""How much more memory a process may take: of the machine, and of the limits it lives under."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import psutil

_CGROUPS = Path("/sys/fs/cgroup")


def available(pid: int) -> int:
    """Bytes that a process can still take without anybody being killed, as far as can be told."""
    limits = [_left(directory) for directory in _memory_cgroups(pid)]
    return max(0, min([psutil.virtual_memory().available, *filter(None, limits)]))


def _memory_cgroups(pid: int) -> list[Path]:
    """Its cgroup for memory and all above that, in either version; none when it is gone."""
    try:
        # A container may have given its cgroups any names.
        text = os.fsdecode(Path(f"/proc/{pid}/cgroup").read_bytes())
    except OSError:
        return []
    for line in text.split("\n")[:-1]:
        number, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            root = _CGROUPS / "memory"
        elif number == "0":
            root = _CGROUPS
        else:
            continue
        inner = root / path.lstrip("/")
        return [inner, *(each for each in inner.parents if each.is_relative_to(root))]
    return []


def _left(cgroup: Path) -> int | None:
    """What is left of a cgroup's limit; None when it has none, or cannot be read."""
    for limit, usage in (
        ("memory.max", "memory.current"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        try:
            most = (cgroup / limit).read_text().strip()
            used = int((cgroup / usage).read_text())
        except OSError:
            continue
        return None if most == "max" else max(1, int(most) - used + _cached(cgroup))
    return None


def _cached(cgroup: Path) -> int:
    """Bytes of files in memory: they count as used, and go when somebody needs the room.

    Who has loaded a model has all of its files there, up to the limit. (Not among them: tmpfs.)
    """
    with contextlib.suppress(OSError, ValueError, KeyError):
        lines = (cgroup / "memory.stat").read_text().splitlines()
        facts = dict(line.split(maxsplit=1) for line in lines)
        # Version 1 tells with `total_` what those below have, too; version 2 always does.
        prefix = "total_" if "total_active_file" in facts else ""
        return sum(int(facts[f"{prefix}{name}_file"]) for name in ("active", "inactive"))
    return 0
