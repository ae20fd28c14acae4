"""Directories that belong to a pod and go with it: its /dev/shm and its emptyDir volumes.

CRIU takes a container's bind mounts for somebody else's and saves nothing of what is in them.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from agent.host import kubelet
from agent.pods.bundle import Mount
from agent.pods.files import REMEMBERED
from agent.targets import Volume


def volumes(
    containers: Iterable[tuple[Mount, ...]], uid: str, sandbox_id: str
) -> tuple[Volume, ...]:
    """The volumes among the mounts of a pod's containers, each once, by name."""
    among = (_among(mounts, uid, sandbox_id) for mounts in containers)
    found = {volume.source: volume for each in among for volume in each}
    return tuple(sorted(found.values(), key=lambda volume: (volume.medium, volume.name)))


@lru_cache(maxsize=REMEMBERED)
def _among(mounts: tuple[Mount, ...], uid: str, sandbox_id: str) -> tuple[Volume, ...]:
    return tuple(volume for mount in mounts if (volume := _volume(mount, uid, sandbox_id)))


def _volume(mount: Mount, uid: str, sandbox_id: str) -> Volume | None:
    if found := kubelet.empty_dir(str(mount.source), uid):
        name, path = found
        return Volume(name, Path(path), "empty-dir")
    if mount.destination == "/dev/shm" and kubelet.is_shm(str(mount.source), sandbox_id):  # noqa: S108
        return Volume("shm", mount.source, "shm")
    return None
