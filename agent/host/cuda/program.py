"""NVIDIA's program cuda-checkpoint, for drivers before 570 (from 555 on it has `--action`).

One process for each call and pid, each of which initialises the driver anew: some 26 ms where the
GPUs are awake, seconds where they are not. (NVIDIA/cuda-checkpoint, README.)
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from agent.errors import MissingTool
from agent.host.cuda.model import CudaFailed
from agent.host.run import run

_NAME: Final = "cuda-checkpoint"

# What it prints of a process that has never called the driver.
_NOT_CUDA: Final = "initialization error"


class Program:
    """The program, with the calls that the helper has."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def call(
        self, call: str, pid: int, seconds: float, arguments: Mapping[str, object]
    ) -> object:
        """Raises CudaFailed."""
        words = [str(self._path), "--pid", str(pid), *_options(call, arguments)]
        try:
            done = await run(words, timeout=seconds, check=False)
        except TimeoutError:
            reason = f"no answer within {seconds:g} s"
            raise CudaFailed(call, pid, reason, answered=False) from None
        except MissingTool as error:  # it was there a moment ago
            raise CudaFailed(call, pid, str(error)) from None
        if done.returncode:
            complaint = (done.stderr or done.stdout).strip() or f"exit status {done.returncode}"
            not_cuda = _NOT_CUDA in complaint.lower()
            raise CudaFailed(call, pid, "CUDA_ERROR_NOT_INITIALIZED" if not_cuda else complaint)
        return done.stdout.strip()


def find_program() -> Program | None:
    """It comes from NVIDIA alone; None where nobody has put it."""
    found = shutil.which(_NAME)
    return Program(Path(found)) if found else None


def _options(call: str, arguments: Mapping[str, object]) -> list[str]:
    if call == "state":
        return ["--get-state"]
    words = ["--action", call]
    if "timeout_ms" in arguments:
        words += ["--timeout", str(arguments["timeout_ms"])]
    devices = arguments.get("devices")
    if isinstance(devices, dict) and devices:
        words += ["--device-map", ",".join(f"{old}={new}" for old, new in devices.items())]
    return words
