"""How much memory a pod's processes have: what a checkpoint of it has to carry away."""

from __future__ import annotations

import contextlib
import resource
from pathlib import Path
from typing import Final

from agent.errors import TargetNotFound
from agent.host import runc
from agent.pods.model import FoundPod

_PAGE: Final = resource.getpagesize()


def resident_bytes(pod: FoundPod) -> int:
    """Of all processes in its containers' cgroups; pages that they share count for each of them.

    Good enough to tell small pods from big ones. Reads /proc: about 20 µs for a process.
    """
    total = 0
    for container in pod.containers:
        # A container that has just ended has none.
        with contextlib.suppress(TargetNotFound):
            freezer = runc.load(container.target).freezer
            if freezer is not None:
                total += sum(_resident(pid) for pid in freezer.pids())
    return total


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    except (OSError, IndexError):
        return 0  # it has ended
