"""The config.json of the bundles: the least that is still an ordinary container.

Written here and not by ``runc spec``, whose output differs between versions and asks for a terminal
and a cgroup namespace, which is not everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

Json = dict[str, object]

CAPABILITIES = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]
MASKED = ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list"]
READ_ONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]


def container_spec(
    *,
    args: Sequence[str],
    hostname: str,
    cgroup: str,
    netns: Path | None = None,
    annotations: Mapping[str, str] | None = None,
) -> Json:
    """A runtime configuration that runc 1.1 to 1.3 take, on cgroup v1 and v2.

    Args:
        args: the command, with its absolute path in the root filesystem.
        cgroup: its own name below the cgroup root; must be unique on the machine.
        netns: join this network namespace instead of a new one with nothing but ``lo``.
        annotations: what a container engine would have written onto it.
    """
    return {
        "ociVersion": "1.0.2",
        "process": _process(args),
        "root": {"path": "rootfs", "readonly": False},
        "hostname": hostname,
        "annotations": dict(annotations or {}),
        "mounts": _mounts(),
        "linux": {
            "cgroupsPath": f"/{cgroup}",
            "namespaces": _namespaces(netns),
            "maskedPaths": MASKED,
            "readonlyPaths": READ_ONLY,
            "resources": {"devices": [{"allow": False, "access": "rwm"}]},
        },
    }


def _process(args: Sequence[str]) -> Json:
    return {
        "terminal": False,
        "user": {"uid": 0, "gid": 0},
        "args": list(args),
        "env": ["PATH=/bin"],
        "cwd": "/",
        "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), CAPABILITIES),
        "noNewPrivileges": True,
    }


def _namespaces(netns: Path | None) -> list[Json]:
    namespaces: list[Json] = [{"type": kind} for kind in ("pid", "ipc", "uts", "mount")]
    joined: Json = {"path": str(netns)} if netns else {}
    return [*namespaces, {"type": "network", **joined}]


def _mounts() -> list[Json]:
    options = ["nosuid", "noexec"]
    return [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
         "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
        {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
         "options": [*options, "newinstance", "ptmxmode=0666", "mode=0620"]},
        {"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
         "options": [*options, "nodev", "mode=1777", "size=65536k"]},
    ]  # fmt: skip
