"""Reasons why GPU state cannot be taken, or not come back here, before anything is touched.

Limits of the driver: no MIG, no MPS; its own copy of device memory goes into the process's memory.
Managed memory and CUDA IPC cannot be seen from outside: the driver refuses those by itself, and
everything is put back. (NVIDIA/cuda-checkpoint, README; cuda.h on cuCheckpointProcessRestore.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from agent.gpu.finding import GpuProcess
from agent.host.cuda import CudaState, Gpu, Inventory
from agent.manifest import Gpu as Recorded

_MIB = 1 << 20


class Impossible(Exception):
    """Why not, in a sentence that goes on after "cannot be checkpointed: "."""


def check_before_dump(
    inventory: Inventory, processes: Sequence[GpuProcess], memory_available: int
) -> None:
    """Refuse what the driver would refuse half-way.

    Args:
        memory_available: bytes that these processes may still take: of the machine, and of their
            cgroups' limits.

    Raises:
        Impossible
    """
    pids = {each.pid for each in processes}
    for each in processes:
        if each.state is not CudaState.RUNNING:
            raise Impossible(
                f"its process {each.pid} is {each.state} for the driver already; if nobody is at"
                " it, `checkpoint-agent thaw --all` brings back what a dead agent left so"
            )
    needed = 0
    for gpu in inventory.gpus:
        mine = {pid: used for pid, used in (gpu.used_bytes or {}).items() if pid in pids}
        needed += sum(mine.values())
        if pids & set(gpu.shared):
            raise Impossible("it uses its GPU through MPS, which the driver cannot checkpoint")
        if mine and gpu.mig:
            raise Impossible(
                "it uses an instance of a GPU (MIG), which the driver cannot checkpoint"
            )
    if needed > memory_available:
        raise Impossible(
            f"it has {needed // _MIB} MiB on its GPUs, which have to fit into its memory for the"
            f" checkpoint, and there are {memory_available // _MIB} MiB left within its limit"
        )


def check_driver(recorded: str, inventory: Inventory) -> None:
    """A process takes the driver's library along in its memory, which only its own kernel module
    answers.

    Raises:
        Impossible: the driver here is of another version.
    """
    if inventory.gpus and inventory.driver != recorded:
        raise Impossible(
            f"it was checkpointed with NVIDIA's driver {recorded}, whose library is in its memory;"
            f" this machine has {inventory.driver}"
        )


def device_map(recorded: Sequence[Recorded], inventory: Inventory) -> dict[str, str]:
    """Which GPU here takes the place of which; empty when they are the very same.

    The driver wants every GPU of the old machine named. Those that were used go to ones of the same
    model with enough memory, the least used first; for the others any will do.

    Raises:
        Impossible: there are none.
    """
    here = {gpu.uuid: gpu for gpu in inventory.gpus}
    if all(old.uuid in here for old in recorded if old.used):
        return {}
    free = sorted(inventory.gpus, key=lambda gpu: sum((gpu.used_bytes or {}).values()))
    chosen: dict[str, str] = {}
    for old in sorted(recorded, key=lambda old: (not old.used, old.uuid not in here)):
        new = _place(old, [gpu for gpu in free if gpu.uuid not in chosen.values()])
        if new is not None:
            chosen[old.uuid] = new.uuid
        elif old.used:
            raise Impossible(_missing(recorded, inventory))
    return chosen


def _place(old: Recorded, free: Sequence[Gpu]) -> Gpu | None:
    fitting = [
        gpu
        for gpu in free
        if not old.used
        or (gpu.model == old.model and gpu.memory_bytes >= old.memory_bytes and not gpu.mig)
    ]
    same = [gpu for gpu in fitting if gpu.uuid == old.uuid]
    return next(iter(same + fitting), None)


def _missing(recorded: Sequence[Recorded], inventory: Inventory) -> str:
    wanted = _counted([old.model for old in recorded if old.used])
    found = _counted([gpu.model for gpu in inventory.gpus]) or "no GPU"
    return f"its GPUs were {wanted}; this machine has {found}"


def _counted(models: Sequence[str]) -> str:
    counts: Mapping[str, int] = {model: models.count(model) for model in sorted(models)}
    return ", ".join(f"{count} x {model}" for model, count in counts.items())
