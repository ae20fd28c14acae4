"""Which of the paths that are mounted into a container belong to its pod, and go with it.

A kubelet's directory may be anywhere; below that it is always `pods/UID`.

Also for programs that have to start quickly: standard library only, and little of that.
"""

from __future__ import annotations

import os
import re

_EMPTY_DIR = "kubernetes.io~empty-dir"

_BELOW = re.compile(r"(volumes|volume-subpaths|containers|etc-hosts)(/.*)?")

# Names of volumes are DNS labels; what follows one is a directory inside it. With a `subPath` a
# kubelet binds that directory first.
_VOLUME = re.compile(
    rf"(volumes/{_EMPTY_DIR}|(?P<subpaths>volume-subpaths))"
    r"/(?P<name>[a-z0-9]([a-z0-9-]*[a-z0-9])?)(/.*)?"
)


def pod_directory(source: str, uid: str) -> str | None:
    """The directory of a pod, by a path in it; None of a path that is not in this pod's."""
    pod, below = _parted(source, uid)
    return pod if _BELOW.fullmatch(below) else None


def empty_dir(source: str, uid: str) -> tuple[str, str] | None:
    """Name and path of a pod's emptyDir volume that a path is in; None of any other path.

    A pod may have any directory of its node mounted, another pod's volume for one: that is not its
    own, and nothing of it is ever taken or replaced.
    """
    pod, below = _parted(source, uid)
    match = _VOLUME.fullmatch(below)
    if match is None:
        return None
    path = f"{pod}/volumes/{_EMPTY_DIR}/{match['name']}"
    # Volumes of any kind have subpaths; only an emptyDir has this directory.
    if match["subpaths"] and not os.path.isdir(path):
        return None
    return match["name"], path


def is_shm(source: str, sandbox_id: str) -> bool:
    """Whether that is a pod's /dev/shm, which its engine keeps. With hostIPC it is the host's: no.

    containerd: .../sandboxes/ID/shm; CRI-O: .../ID/userdata/shm.
    """
    parts = source.split("/")
    return parts[-1] == "shm" and sandbox_id in parts[-3:-1]


def _parted(source: str, uid: str) -> tuple[str, str]:
    """A pod's directory, and a path in it below that; that is "" of any other path."""
    above, _, below = source.partition(f"/pods/{uid}/")
    return f"{above}/pods/{uid}", below
