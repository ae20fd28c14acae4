"""The kernel, its file systems and its devices. Read from /proc and /sys; nothing is tried out."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from agent.config import MIB
from agent.doctor.ask import dotted, version_in
from agent.doctor.finding import Finding

# The oldest kernel with all that restores rely on: clone3 with set_tid came in 5.5, 5.10 is the
# oldest long-term one after it.
MINIMUM_KERNEL = (5, 10)

# What the agent asks each of CRIU's page pipes to hold: fewer, larger reads while tasks are frozen.
PIPE_SIZE = MIB

# Where streaming cannot be used, CRIU's images land in the state directory for a while.
COMFORTABLE, LEAST = 1024 * MIB, 16 * MIB

# The first driver whose checkpoint API suspends a process's GPU state.
MINIMUM_DRIVER = 570


def kernel_finding(release: str | None = None) -> Finding:
    """Linux new enough?"""
    release = release or os.uname().release
    version = version_in(release) or (0,)
    if version < MINIMUM_KERNEL:
        advice = f"Linux >= {dotted(MINIMUM_KERNEL)} is what was tested"
        return Finding("kernel", "warn", release, advice)
    return Finding("kernel", "ok", release)


def cgroup_finding(mountinfo: Path = Path("/proc/self/mountinfo")) -> Finding:
    """Which cgroup hierarchy is mounted, and can it freeze?"""
    mounts = [mount for mount in _mounts(mountinfo) if mount.is_cgroup]
    unified = [mount for mount in mounts if mount.type == "cgroup2"]
    legacy = [mount for mount in mounts if mount.type == "cgroup"]
    if not mounts:
        advice = "mount /sys/fs/cgroup (in a container: run it privileged)"
        return Finding("cgroups", "fail", "no cgroup hierarchy is mounted", advice)
    # Version 2 always freezes, since Linux 5.2; version 1 has a controller for it.
    if not legacy:
        return Finding("cgroups", "ok", "version 2, with freezer")
    name = "hybrid" if unified else "version 1"
    if any("freezer" in mount.options for mount in legacy):
        return Finding("cgroups", "ok", f"{name}, with freezer")
    advice = "mount the freezer controller, or boot with systemd.unified_cgroup_hierarchy=1"
    return Finding("cgroups", "fail", f"{name}, without freezer", advice)


class _Mount:
    """One line of mountinfo, as far as it matters here."""

    def __init__(self, line: str) -> None:
        head, _, tail = line.partition(" - ")
        self.point = head.split()[4]
        self.type, _, rest = tail.partition(" ")
        self.options = rest.rpartition(" ")[2].split(",")
        self.is_cgroup = self.type in ("cgroup", "cgroup2")


def _mounts(mountinfo: Path) -> list[_Mount]:
    # Names of directories are any bytes, and only blanks and backslashes are escaped.
    return [_Mount(line) for line in mountinfo.read_text(errors="replace").split("\n") if line]


def pipe_finding(limit: Path = Path("/proc/sys/fs/pipe-max-size")) -> Finding:
    """May pipes be as large as the agent wants them?"""
    size = int(limit.read_text())
    if size >= PIPE_SIZE:
        return Finding("pipe size", "ok", f"up to {size} bytes")
    advice = f"sysctl fs.pipe-max-size={PIPE_SIZE}: smaller pipes make freezes longer"
    return Finding("pipe size", "warn", f"up to {size} bytes", advice)


def state_directory_finding(directory: Path) -> Finding:
    """Can the agent's own directory be written, and is there room in it?"""
    existing = next(path for path in (directory, *directory.parents) if _is_there(path))
    if not os.access(existing, os.W_OK) or os.statvfs(existing).f_flag & os.ST_RDONLY:
        advice = "run as root, or set CHECKPOINT_AGENT_STATE_DIR to a directory that can be written"
        return Finding("state directory", "fail", f"{existing} cannot be written", advice)
    free = shutil.disk_usage(existing).free
    detail = f"{directory}: {free // MIB} MiB free"
    advice = "free some space, or set CHECKPOINT_AGENT_STATE_DIR to a directory with more"
    if free < LEAST:
        return Finding("state directory", "fail", detail, advice)
    if free < COMFORTABLE:
        return Finding("state directory", "warn", detail, advice)
    return Finding("state directory", "ok", detail)


def _is_there(directory: Path) -> bool:
    """Also one that an ordinary user may not look at."""
    try:
        return directory.is_dir()
    except PermissionError:
        return True


def run_directory_finding(mountinfo: Path = Path("/proc/self/mountinfo")) -> Finding:
    """CRIU keeps what it found out about the kernel in /run, if that is lost on a reboot."""
    types = {mount.point: mount.type for mount in _mounts(mountinfo)}
    if types.get("/run") == "tmpfs":
        return Finding("/run", "ok", "a tmpfs")
    advice = "mount a tmpfs there: CRIU probes the kernel at every start otherwise (some 10 ms)"
    return Finding("/run", "warn", "not a tmpfs", advice)


def gpu_finding(
    driver: Path = Path("/proc/driver/nvidia/version"),
    module: Path = Path("/sys/module/nvidia/version"),
) -> Finding:
    """NVIDIA's driver, if there is one: new enough to suspend what is on the GPU?"""
    text = next((file.read_text() for file in (driver, module) if file.is_file()), None)
    if text is None:
        return Finding("GPU driver", "ok", "no GPU driver")
    match = re.search(r"\b(\d{3,})\.\d+(?:\.\d+)?\b", text)
    if match is None:
        return Finding("GPU driver", "warn", "version not understood: " + text.partition("\n")[0])
    if int(match[1]) < MINIMUM_DRIVER:
        advice = f"install NVIDIA's driver >= {MINIMUM_DRIVER}: older ones cannot suspend a GPU"
        return Finding("GPU driver", "warn", match[0], advice)
    return Finding("GPU driver", "ok", match[0])
