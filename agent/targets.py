"""What can be checkpointed: a runc container, or a process tree without one."""

from __future__ import annotations

from dataclasses import dataclass
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
class ProcessTarget:
    """A process and everything below it."""

    pid: int

    def __str__(self) -> str:
        return f"process {self.pid}"


Target = RuncTarget | ProcessTarget
