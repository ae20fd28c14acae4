"""What the figures were measured on: the machine, and the versions of all that took part."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

from agent import __version__
from agent.config import Tools

LIBRARIES = ("zstandard", "lz4", "xxhash", "pydantic")


def facts(tools: Tools, disk: Path) -> dict[str, str]:
    """What to know to read the figures; ``disk`` is where everything was written."""
    return {
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "memory": f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.1f} GiB",
        "kernel": platform.release(),
        "cgroups": "v2" if Path("/sys/fs/cgroup/cgroup.controllers").exists() else "v1",
        "disk": _disk(disk),
        "runc": _first_line([tools.require_runc(), "--version"]),
        "CRIU": _first_line([tools.criu, "--version"]),
        "tar": _first_line(["tar", "--version"]),
        "zstd": _first_line(["zstd", "--version"]),
        "Python": platform.python_version(),
        "libraries": ", ".join(f"{name} {importlib.metadata.version(name)}" for name in LIBRARIES),
        "checkpoint-agent": __version__,
    }


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _disk(path: Path) -> str:
    """File system and device that ``path`` is on; virtual disks do not say whether they rotate."""
    words = _first_line(["findmnt", "-n", "-o", "FSTYPE,SOURCE", "--target", path]).split()
    return " on ".join(words) or "unknown"


def _first_line(argv: list[str | Path]) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return done.stdout.strip().partition("\n")[0]
