"""Reasons why GPU state cannot be taken, or not come back here, before anything is touched.

Limits of the driver: no MIG, no MPS; its own copy of device memory goes into the process's memory.
Managed memory and CUDA IPC cannot be seen from outside: the driver refuses those by itself, and
everything is put back. (NVIDIA/cuda-checkpoint, README; cuda.h on cuCheckpointProcessRestore.)
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final

from agent.gpu.finding import GpuProcess
from agent.host.cuda import CudaState, Gpu, Inventory
from agent.manifest import Gpu as Recorded

_MIB = 1 << 20

# The first driver that can bring a process back onto another GPU (CUDA 13.0).
_MAPPING_DRIVER: Final = 580


class Impossible(Exception):
    """Why not, in a sentence that goes on after "cannot be checkpointed: "."""


def check_before_dump(
    inventory: Inventory, processes: Sequence[GpuProcess], memory_available: int
) -> int:
    """Refuse what the driver, or CRIU after it, would refuse half-way.

    Returns:
        How many bytes of memory they will take for what they have on GPUs.

    Args:
        memory_available: bytes that these processes may still take: of the machine, and of their
            cgroups' limits.

    Raises:
        Impossible
    """
    pids = {each.pid for each in processes}
    for each in processes:
        if each.state is None:
            raise Impossible(
                f"its process {each.pid} has a GPU mapped that the driver cannot take from it: it"
                " was forked from one that uses the GPU, as workers of a data loader are (have them"
                " started by `spawn`), or it draws, or has only just begun"
            )
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
    return needed


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


def device_map(
    recorded: Sequence[Recorded], inventory: Inventory, given: Collection[int] = ()
) -> dict[str, str]:
    """Which GPU here takes the place of which; empty when they are the very same.

    The driver wants every GPU named that was seen on the old machine. Those that were used go to
    ones of the same model with enough memory, the least used first; for the others any will do.

    Args:
        given: minor numbers of the GPUs that the containers were given, if they were given some:
            others are none of theirs.

    Raises:
        Impossible: there are none.
    """
    # Where nobody could tell at the dump, any of them may have been used, and be whose it was.
    is_told = any(old.used for old in recorded)
    used = [old for old in recorded if old.used or not is_told]
    allowed = [gpu for gpu in inventory.gpus if not (given and is_told) or gpu.minor in given]
    here = {gpu.uuid for gpu in allowed}
    if here and all(old.uuid in here for old in used):
        return {}
    if not here:
        raise Impossible(_missing(used, allowed, inventory))
    free = sorted(inventory.gpus, key=lambda gpu: sum((gpu.used_bytes or {}).values()))
    chosen: dict[str, str] = {}
    for old in sorted(recorded, key=lambda old: (old not in used, old.uuid not in here)):
        places = [gpu for gpu in free if gpu.uuid not in chosen.values()]
        if old in used:
            places = [gpu for gpu in places if gpu.uuid in here and _fits(old, gpu)]
        if places:
            chosen[old.uuid] = next((gpu for gpu in places if gpu.uuid == old.uuid), places[0]).uuid
        elif old in used:
            raise Impossible(_missing(used, allowed, inventory))
    _check_mapping(inventory.driver)
    return chosen


def _fits(old: Recorded, gpu: Gpu) -> bool:
    return gpu.model == old.model and gpu.memory_bytes >= old.memory_bytes and not gpu.mig


def _check_mapping(driver: str) -> None:
    major = driver.partition(".")[0]
    if major.isdecimal() and int(major) < _MAPPING_DRIVER:
        raise Impossible(
            f"it has to come back onto other GPUs, which NVIDIA's driver {driver} cannot do;"
            f" {_MAPPING_DRIVER} and newer can"
        )


def _missing(used: Sequence[Recorded], allowed: Sequence[Gpu], inventory: Inventory) -> str:
    wanted = _counted([old.model for old in used])
    found = _counted([gpu.model for gpu in allowed]) or "no GPU"
    who = "it was given" if len(allowed) < len(inventory.gpus) else "this machine has"
    return f"its GPUs were {wanted}; {who} {found}"


def _counted(models: Sequence[str]) -> str:
    counts: Mapping[str, int] = {model: models.count(model) for model in sorted(models)}
    return ", ".join(f"{count} x {model}" for model, count in counts.items())
