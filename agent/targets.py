"""What can be checkpointed: a runc container, a process tree without one, or a pod."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from agent.config import DEFAULT_RUNC_ROOT


@dataclass(frozen=True, slots=True)
class RuncTarget:
    """A container by its id, under one of runc's roots."""

    container: str
    root: Path = DEFAULT_RUNC_ROOT

    def __str__(self) -> str:
        return f"container {self.container!r}"


@dataclass(frozen=True, slots=True)
class Birth:
    """Which of the processes that have had a pid: in which boot of the machine it was started, and
    how many clock ticks after that; 0 where there was none.
    """

    boot: str
    started: int


@dataclass(frozen=True, slots=True)
class ProcessTarget:
    """A process and everything below it.

    ``birth`` where somebody has looked who that was when it was asked for.
    """

    pid: int
    birth: Birth | None = field(default=None, compare=False)

    def __str__(self) -> str:
        return f"process {self.pid}"


Target = RuncTarget | ProcessTarget


@dataclass(frozen=True, slots=True)
class PodRef:
    """A pod by its UID, or by namespace and name; "" is not given. What is given has to match."""

    uid: str = ""
    namespace: str = ""
    name: str = ""

    def __str__(self) -> str:
        name = f"{self.namespace}/{self.name}" if self.name else ""
        return f"pod {' '.join(part for part in (name, self.uid) if part)}"


class Kind(StrEnum):
    """What of a container is taken."""

    SIMPLE = "simple"
    ROOTFS = "rootfs"
    ROOTFS_ONLY = "rootfsonly"


@dataclass(frozen=True, slots=True)
class Volume:
    """A directory of a pod that its containers share and that goes when the pod goes."""

    name: str
    source: Path
    medium: str
