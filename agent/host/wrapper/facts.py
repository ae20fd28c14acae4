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


class Facts:
    """A container's place in a pod, and where its root filesystem is mounted.

    ``sandbox``, ``name`` and ``uid``, the pod's, are "" where it has none.
    """

    def __init__(self, bundle: str) -> None:
        config = _read(f"{bundle}/config.json")
        annotations = _object(config.get("annotations"))
        kinds = ("io.kubernetes.cri.container-type", "io.kubernetes.cri-o.ContainerType")
        kind = next((annotations[key] for key in kinds if key in annotations), None)
        self.is_container = kind == "container"
        labels = _object(_parse(annotations.get("io.kubernetes.cri-o.Labels", "{}")))
        self.sandbox = _name(
            annotations.get("io.kubernetes.cri.sandbox-id"),
            annotations.get("io.kubernetes.cri-o.SandboxID"),
        )
        self.name = _name(
            annotations.get("io.kubernetes.cri.container-name"),
            labels.get("io.kubernetes.container.name"),
        )
        # Before 1.6.1 containerd does not write it down here.
        self.uid = _name(
            annotations.get("io.kubernetes.cri.sandbox-uid"),
            labels.get("io.kubernetes.pod.uid"),
        )
        # containerd's is relative to the bundle, CRI-O's absolute.
        self.root = os.path.join(bundle, str(_object(config.get("root")).get("path", "")))


def _name(*candidates: object) -> str:
    found = [each for each in candidates if isinstance(each, str) and _NAME.fullmatch(each)]
    return found[0] if found else ""


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
