"""Directories that belong to a pod and go with it: its /dev/shm and its emptyDir volumes.

CRIU takes a container's bind mounts for somebody else's and saves nothing of what is in them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from agent.pods.bundle import Mount
from agent.pods.files import REMEMBERED
from agent.targets import Volume

_EMPTY_DIR = "kubernetes.io~empty-dir"

# Names of volumes are DNS labels; what follows one is a directory inside it.
_VOLUME = re.compile(
    rf"(?P<path>/.*/volumes/{_EMPTY_DIR}/(?P<name>[a-z0-9]([a-z0-9-]*[a-z0-9])?))(/.*)?"
)

# With a `subPath` a kubelet binds that directory here first: PODS/UID/volume-subpaths/VOLUME/...
_SUBPATH = re.compile(r"(?P<pod>/.*)/volume-subpaths/(?P<name>[a-z0-9]([a-z0-9-]*[a-z0-9])?)/.*")


def volumes(containers: Iterable[tuple[Mount, ...]], sandbox_id: str) -> tuple[Volume, ...]:
    """The volumes among the mounts of a pod's containers, each once, by name."""
    found = {
        volume.source: volume for mounts in containers for volume in _among(mounts, sandbox_id)
    }
    return tuple(sorted(found.values(), key=lambda volume: (volume.medium, volume.name)))


@lru_cache(maxsize=REMEMBERED)
def _among(mounts: tuple[Mount, ...], sandbox_id: str) -> tuple[Volume, ...]:
    return tuple(volume for mount in mounts if (volume := _volume(mount, sandbox_id)))


def _volume(mount: Mount, sandbox_id: str) -> Volume | None:
    match = _VOLUME.fullmatch(str(mount.source))
    if match:
        return Volume(match["name"], Path(match["path"]), "empty-dir")
    match = _SUBPATH.fullmatch(str(mount.source))
    if match:
        path = Path(match["pod"]) / "volumes" / _EMPTY_DIR / match["name"]
        # Volumes of any kind have subpaths; only an emptyDir has this directory.
        return Volume(match["name"], path, "empty-dir") if path.is_dir() else None
    if mount.destination == "/dev/shm" and _is_shm_of(mount.source, sandbox_id):  # noqa: S108
        return Volume("shm", mount.source, "shm")
    return None


def _is_shm_of(source: Path, sandbox_id: str) -> bool:
    """containerd: .../sandboxes/ID/shm; CRI-O: .../ID/userdata/shm. With hostIPC the host's: no."""
    return source.name == "shm" and sandbox_id in source.parts[-3:-1]
