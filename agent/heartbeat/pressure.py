"""Whether a machine has room for a heartbeat: nobody is to suffer from what nobody waits for."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final, Literal
from urllib.parse import unquote, urlsplit

from agent.settings import Heartbeat

Scarce = Literal["cpu", "memory", "io", "space"]

_SOME: Final = re.compile(r"some avg10=([0-9]{1,3}\.[0-9]+) ")


def scarce(settings: Heartbeat, store_url: str, proc: Path) -> Scarce | None:
    """What there is too little of; None when there is enough of everything. Reads a few files.

    Args:
        proc: /proc.
    """
    if _lacks_space(store_url, settings.store_free):
        return "space"
    limits: dict[Scarce, float] = {
        "memory": settings.memory_pressure,
        "io": settings.io_pressure,
        "cpu": settings.cpu_pressure,
    }
    found = {name: _stalled(proc / "pressure" / name) for name in limits}
    for name, limit in limits.items():
        if (percent := found[name]) is not None and percent > limit:
            return name
    # A kernel without PSI, or with it switched off (psi=0): reading fails then.
    if found["memory"] is None and _memory_available(proc) < settings.memory_available:
        return "memory"
    if found["cpu"] is None and _load_per_core(proc) > settings.load_per_core:
        return "cpu"
    return None


def _stalled(path: Path) -> float | None:
    """Percent of the last ten seconds in which some task waited for it; None where nobody knows."""
    try:
        found = _SOME.search(path.read_text())
    except OSError:
        return None
    return float(found[1]) if found else None


def _memory_available(proc: Path) -> float:
    """Percent of all memory; 100 where nobody knows."""
    try:
        pairs = re.findall(r"^(\w+):\s+([0-9]+) kB$", (proc / "meminfo").read_text(), re.MULTILINE)
        sizes = {name: int(size) for name, size in pairs}
        return 100 * sizes["MemAvailable"] / sizes["MemTotal"]
    except (OSError, KeyError, ZeroDivisionError):
        return 100.0


def _load_per_core(proc: Path) -> float:
    """Of the last minute; 0 where nobody knows."""
    try:
        return float((proc / "loadavg").read_text().split()[0]) / (os.cpu_count() or 1)
    except (OSError, ValueError, IndexError):
        return 0.0


def _lacks_space(store_url: str, percent: float) -> bool:
    """Whether less of a directory's file system is free; an object store has room for ever."""
    parts = urlsplit(store_url)
    if parts.scheme != "file":
        return False
    path = Path(unquote(parts.path))
    while not path.exists() and path != path.parent:
        path = path.parent
    try:
        facts = os.statvfs(path)
    except OSError:
        return False  # the checkpoint will say what is wrong with it
    return facts.f_bavail * 100 < facts.f_blocks * percent
