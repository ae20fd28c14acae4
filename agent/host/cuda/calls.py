"""The calls themselves. Imported by the helper process alone: they load NVIDIA's libraries.

Sources: cuda.h of CUDA 12.8 (cuCheckpointProcess*), of 13.0 (device map), and nvml.h.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable, Mapping
from typing import Any

import pynvml
from cuda.bindings import driver


class Refused(Exception):
    """The driver's own word for why not."""


def start() -> int:
    """Initialise the driver, once; returns its version as 1000 * major + 10 * minor."""
    _done(driver.cuInit(0))
    return int(_done(driver.cuDriverGetVersion()))


def state(pid: int) -> str:
    """In the words of model.CudaState. Raises Refused, for a process without CUDA too."""
    # First, as CRIU's plug-in does: the driver also tells a state of a process that has only
    # started others (`cuda-checkpoint --launch-job`). Those have no thread that could restore.
    _done(driver.cuCheckpointProcessGetRestoreThreadId(pid))
    found = driver.CUprocessState(_done(driver.cuCheckpointProcessGetState(pid)))
    # By their names: bindings before 13.4 do not have all of them.
    return str(found.name).removeprefix("CU_PROCESS_STATE_").lower()


def lock(pid: int, timeout_ms: int) -> None:
    """No further CUDA call begins, and those begun end; running again when there is no time."""
    arguments = driver.CUcheckpointLockArgs()
    arguments.timeoutMs = timeout_ms
    _done(driver.cuCheckpointProcessLock(pid, arguments))


def checkpoint(pid: int) -> None:
    """From its GPUs into its own memory; it holds nothing of them afterwards."""
    _done(driver.cuCheckpointProcessCheckpoint(pid, None))


def restore(pid: int, devices: Mapping[str, str]) -> None:
    """Back onto GPUs: the same, or other ones by UUID; then every old one has to be named."""
    arguments = None
    if devices:
        pairs = []
        for old, new in devices.items():
            pair = driver.CUcheckpointGpuPair()
            pair.oldUuid, pair.newUuid = _uuid(old), _uuid(new)
            pairs.append(pair)
        arguments = driver.CUcheckpointRestoreArgs()
        arguments.gpuPairs = pairs
        arguments.gpuPairsCount = len(pairs)
    _done(driver.cuCheckpointProcessRestore(pid, arguments))


def unlock(pid: int) -> None:
    """Let it make CUDA calls again."""
    _done(driver.cuCheckpointProcessUnlock(pid, None))


def inventory() -> dict[str, Any]:
    """The machine's GPUs, see model.Inventory."""
    pynvml.nvmlInit()
    try:
        handles = map(pynvml.nvmlDeviceGetHandleByIndex, range(pynvml.nvmlDeviceGetCount()))
        return {"driver": pynvml.nvmlSystemGetDriverVersion(), "gpus": [_gpu(h) for h in handles]}
    finally:
        pynvml.nvmlShutdown()


def _gpu(handle: Any) -> dict[str, Any]:  # noqa: ANN401 - NVML's own pointer
    # What cannot tell, a virtual GPU for one, can be checkpointed nevertheless.
    users = _if_supported(pynvml.nvmlDeviceGetComputeRunningProcesses, handle) or []
    shared = _if_supported(pynvml.nvmlDeviceGetMPSComputeRunningProcesses, handle) or []
    mig = _if_supported(pynvml.nvmlDeviceGetMigMode, handle) or (0, 0)
    return {
        "uuid": pynvml.nvmlDeviceGetUUID(handle),
        "model": pynvml.nvmlDeviceGetName(handle),
        "memory_bytes": pynvml.nvmlDeviceGetMemoryInfo(handle).total,
        "minor": _if_supported(pynvml.nvmlDeviceGetMinorNumber, handle),
        "mig": bool(mig[0]),
        "used_bytes": {each.pid: each.usedGpuMemory or 0 for each in users},
        "shared": [each.pid for each in shared],
    }


def _if_supported(call: Callable[[Any], Any], handle: Any) -> Any:  # noqa: ANN401 - NVML's
    with contextlib.suppress(pynvml.NVMLError):
        return call(handle)
    return None


def _uuid(text: str) -> driver.CUuuid:
    made = driver.CUuuid()
    # Its bytes can be read only; it has no other way in.
    ctypes.memmove(made.getPtr(), bytes.fromhex(text.removeprefix("GPU-").replace("-", "")), 16)
    return made


def _done(answer: tuple[Any, ...]) -> Any:  # noqa: ANN401 - whatever the call returns
    """What a call returned beside its result. Raises Refused unless that is a success."""
    result, *values = answer
    if result != driver.CUresult.CUDA_SUCCESS:
        raise Refused(driver.CUresult(result).name)
    return values[0] if values else None
