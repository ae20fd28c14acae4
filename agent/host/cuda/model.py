"""What the driver says, in words of ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class CudaState(StrEnum):
    """Of a process that uses CUDA (CUprocessState; `cuda-checkpoint --get-state` says the same)."""

    RUNNING = "running"
    LOCKED = "locked"
    CHECKPOINTED = "checkpointed"
    FAILED = "failed"
    # In the middle of one that moves the memory elsewhere (CUDA 13.4): somebody else's.
    CHECKPOINTING = "checkpointing"
    RESTORING = "restoring"


class CudaFailed(Exception):
    """The driver refused, or did not answer; ``result`` is its own word, CUDA_ERROR_... mostly.

    ``answered`` is False when nobody knows what has become of the call, or will yet.
    """

    def __init__(self, call: str, pid: int, result: str, *, answered: bool = True) -> None:
        super().__init__(f"{call} of process {pid}: {result}")
        self.call, self.pid, self.result, self.answered = call, pid, result, answered


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU of this machine.

    Attributes:
        uuid: as NVML writes it, ``GPU-...``; for a device map, too.
        memory_bytes: all it has.
        minor: of its device node, N of ``/dev/nvidiaN``; None when the driver does not tell.
        mig: whether it is parted into instances, which the driver cannot checkpoint.
        used_bytes: by the pid of each process that computes on it.
        shared: pids of those that go through MPS, which the driver cannot checkpoint either.
    """

    uuid: str
    model: str
    memory_bytes: int
    mig: bool = False
    used_bytes: Mapping[int, int] | None = None
    shared: tuple[int, ...] = ()
    minor: int | None = None


@dataclass(frozen=True, slots=True)
class Inventory:
    """GPUs in the driver's order, and its version, ``580.65.06``; none and "" without a driver."""

    driver: str = ""
    gpus: tuple[Gpu, ...] = ()
