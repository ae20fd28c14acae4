"""Pods on this machine, and the containers of each: found in what runc has written down."""

from __future__ import annotations

from agent.pods.annotations import PREFIX
from agent.pods.memory import resident_bytes
from agent.pods.model import FoundPod, PodContainer
from agent.pods.scan import find_pod, list_pods

__all__ = [
    "PREFIX",
    "FoundPod",
    "PodContainer",
    "find_pod",
    "list_pods",
    "resident_bytes",
]
