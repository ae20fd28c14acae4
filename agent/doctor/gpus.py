"""Which GPUs the driver shows, and whether it answers."""

from __future__ import annotations

from collections import Counter
from contextlib import aclosing

from agent.doctor.finding import Finding
from agent.host.cuda import Cuda, CudaFailed
from agent.host.cuda.program import find_program

# The first driver that has the calls; before it, there is a program.
_CALLS_DRIVER = 570

_NAME = "GPUs"
_MIB = 1 << 20


async def gpus_finding() -> Finding:
    """Ask the driver, as a checkpoint of a pod with GPUs would."""
    async with aclosing(Cuda()) as cuda:
        if not cuda.is_there:
            return Finding(_NAME, "ok", "none")
        try:
            found = await cuda.inventory()
        except CudaFailed as error:
            advice = (
                "install checkpoint-agent's extra `gpu`; where the driver came in a container, set"
                " CHECKPOINT_AGENT_CUDA_LIBRARIES to the directory of its libcuda.so.1"
            )
            return Finding(_NAME, "warn", str(error), advice)
    counts = Counter(f"{gpu.model} ({gpu.memory_bytes // _MIB} MiB)" for gpu in found.gpus)
    models = ", ".join(f"{count} x {model}" for model, count in counts.items())
    detail = f"{models or 'none'}, driver {found.driver}"
    major = found.driver.partition(".")[0]
    if major.isdecimal() and int(major) < _CALLS_DRIVER and find_program() is None:
        advice = (
            f"install driver {_CALLS_DRIVER} or newer; from 555 on, NVIDIA's program"
            " cuda-checkpoint in PATH will do"
        )
        return Finding(_NAME, "warn", f"{detail}, which is too old for checkpoints", advice)
    if any(gpu.mig for gpu in found.gpus):
        advice = "pods that use an instance of a parted GPU (MIG) cannot be checkpointed"
        return Finding(_NAME, "warn", f"{detail}; some are parted", advice)
    return Finding(_NAME, "ok", detail)
