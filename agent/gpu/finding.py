"""Which processes have something on a GPU.

A machine without the driver costs one look at a file, and a pod that uses no GPU one look at each
of its processes' mappings: 0.02 ms for a small one, 0.4 for a Python with 300 of them. The driver
is only asked about those that have its library loaded, and many of them have never called it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.host import process
from agent.host.cuda import Cuda, CudaState

# A GPU's own node, as the driver names it in /dev; nvidiactl and nvidia-uvm are all GPUs'.
GPU_NODE: Final = re.compile(r"nvidia\d+")


@dataclass(frozen=True, slots=True)
class GpuProcess:
    """One of them; ``started`` tells it from a later one with the same pid (clock ticks).

    ``state`` is where it was when it was looked at. None: it has a GPU mapped, and the driver does
    not know it. It was forked from one that uses the GPU, as workers of a data loader are.
    """

    pid: int
    started: int
    state: CudaState | None = CudaState.RUNNING

    @property
    def is_alive(self) -> bool:
        """Whether it still is that process."""
        return process.is_alive(self.pid, self.started)


async def find_processes(cuda: Cuda, pids: Iterable[int]) -> list[GpuProcess]:
    """Those among ``pids`` that use GPUs, in order. Asks the driver of all at once.

    Raises:
        CudaFailed: there is a driver, and it does not answer.
    """
    if not cuda.is_there:
        return []
    candidates = await asyncio.to_thread(_candidates, pids)
    states = await asyncio.gather(*(_state(cuda, each) for each in candidates))
    return [
        GpuProcess(each.pid, each.started, state)
        for each, state in zip(candidates, states, strict=True)
        if state is not None or (each.has_device and process.is_alive(each.pid, each.started))
    ]


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A process that has the driver's library in its memory, or memory of a GPU."""

    pid: int
    started: int
    has_library: bool
    has_device: bool


def _candidates(pids: Iterable[int]) -> list[_Candidate]:
    found = []
    for pid in sorted(pids):
        try:
            maps = Path(f"/proc/{pid}/maps").read_bytes()
        except OSError:  # it has just ended
            continue
        # The name is at a line's end, after blanks: a path below somebody's own dev/ is none.
        has_library, has_device = b"libcuda.so" in maps, b" /dev/nvidia" in maps
        if (has_library or has_device) and (facts := process.stat(pid)) is not None:
            found.append(_Candidate(pid, facts.started, has_library, has_device))
    return found


async def _state(cuda: Cuda, candidate: _Candidate) -> CudaState | None:
    return await cuda.state(candidate.pid) if candidate.has_library else None


def visible_minors(pid: int) -> set[int]:
    """Minor numbers of the GPUs of which a process has device nodes; none when it is gone."""
    found = set()
    with contextlib.suppress(OSError), os.scandir(f"/proc/{pid}/root/dev") as nodes:
        for node in nodes:
            if GPU_NODE.fullmatch(node.name):
                facts = node.stat(follow_symlinks=False)
                if stat.S_ISCHR(facts.st_mode):
                    found.add(os.minor(facts.st_rdev))
    return found
