"""Whose a container is, from its bundle: as much as is needed when there is no agent to ask."""

from __future__ import annotations

import json
import os
import re

# Not typing's, which takes 5 ms to import.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# What becomes the name of a file. As in agent/pods/annotations.py.
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")

# By which of them an engine is known, as there.
_CONTAINERD_TYPE = "io.kubernetes.cri.container-type"
_CRIO_TYPE = "io.kubernetes.cri-o.ContainerType"


class Facts:
    """A container's place in a pod, and where its root filesystem is mounted.

    ``sandbox``, ``name`` and ``uid``, the pod's, are "" where it has none.
    """

    def __init__(self, bundle: str) -> None:
        config = _read(f"{bundle}/config.json")
        annotations = _object(config.get("annotations"))
        found = _of_containerd(annotations)
        if _CRIO_TYPE in annotations:
            # No engine writes what both would: its author wants to pass for somebody else.
            found = {} if _CONTAINERD_TYPE in annotations else _of_crio(annotations)
        self.is_container = found.get("type") == "container"
        self.sandbox, self.name = _name(found.get("sandbox")), _name(found.get("name"))
        self.uid = _name(found.get("uid"))
        # containerd's is relative to the bundle, CRI-O's absolute.
        self.root = os.path.join(bundle, str(_object(config.get("root")).get("path", "")))
        self._mounts = config.get("mounts")

    def volumes(self) -> list[str]:
        """Paths of its pod's emptyDir volumes and /dev/shm, as far as it has them mounted.

        As agent/pods/volumes.py finds them; but none where the pod's UID is not written down.
        """
        # Imported here: it is for when there is no agent to ask.
        from agent.host.kubelet import empty_dir, is_shm

        found = []
        for mount in map(_object, self._mounts if isinstance(self._mounts, list) else ()):
            source = str(mount.get("source", ""))
            if ".." in source.split("/") or "\0" in source:
                continue
            if volume := empty_dir(source, self.uid):
                found.append(volume[1])
            elif mount.get("destination") == "/dev/shm" and is_shm(source, self.sandbox):  # noqa: S108
                found.append(source)
        return found


def _of_containerd(annotations: dict[str, Any]) -> dict[str, object]:
    return {
        "type": annotations.get(_CONTAINERD_TYPE),
        "sandbox": annotations.get("io.kubernetes.cri.sandbox-id"),
        "name": annotations.get("io.kubernetes.cri.container-name"),
        # Before 1.6.1 it is not written down here.
        "uid": annotations.get("io.kubernetes.cri.sandbox-uid"),
    }


def _of_crio(annotations: dict[str, Any]) -> dict[str, object]:
    labels = _object(_parse(annotations.get("io.kubernetes.cri-o.Labels", "{}")))
    return {
        "type": annotations.get(_CRIO_TYPE),
        "sandbox": annotations.get("io.kubernetes.cri-o.SandboxID"),
        "name": labels.get("io.kubernetes.container.name"),
        "uid": labels.get("io.kubernetes.pod.uid"),
    }


def _name(found: object) -> str:
    return found if isinstance(found, str) and _NAME.fullmatch(found) else ""


def _read(path: str) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as file:
            return _object(_parse(file.read()))
    except (OSError, UnicodeDecodeError):
        return {}


def _parse(text: object) -> object:
    try:
        return json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        return None


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
