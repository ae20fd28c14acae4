"""What the members of a checkpoint have on GPUs, and why it cannot be taken if it cannot.

A dump is of processes that hold nothing of a GPU. agent.gpu brings them there and back; here is
what a checkpoint makes of that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace

import psutil

from agent.checkpoint.subject import Subject
from agent.errors import TargetNotCheckpointable
from agent.gpu import GpuProcess, check_before_dump, find_processes, visible_minors
from agent.gpu.gate import Impossible
from agent.host import cuda as driver
from agent.host import memory, process
from agent.host.cuda import Cuda, CudaFailed
from agent.manifest import Gpu, Gpus


async def with_gpu_processes(cuda: Cuda, subjects: Sequence[Subject]) -> list[Subject]:
    """The same subjects, with those of their processes that use GPUs.

    Raises:
        TargetNotCheckpointable: they do in a way in which they cannot be checkpointed.
    """
    if not cuda.is_there:
        return list(subjects)
    return [
        replace(subject, gpu_processes=tuple(await _find(cuda, subject))) for subject in subjects
    ]


async def record_gpus(cuda: Cuda, subjects: Mapping[str, Subject]) -> Gpus | None:
    """The GPUs that members see, for the manifest; None when none of the members uses one.

    Args:
        subjects: by the members' names.

    Raises:
        TargetNotCheckpointable: they cannot be checkpointed, or nobody can tell.
    """
    users = {name: subject for name, subject in subjects.items() if subject.gpu_processes}
    if not users:
        return None
    members = list(users.values())
    try:
        inventory = await cuda.inventory()
    except CudaFailed as error:
        raise TargetNotCheckpointable(str(members[0].target), str(error)) from error
    # Each has its own limit, and all have one machine.
    free = psutil.virtual_memory().available
    for subject in members:
        room = min(free, memory.available(subject.pid))
        try:
            free -= check_before_dump(inventory, subject.gpu_processes, room)
        except Impossible as reason:
            raise TargetNotCheckpointable(str(subject.target), str(reason)) from None
    processes = [each for subject in members for each in subject.gpu_processes]
    return Gpus(
        driver=inventory.driver,
        devices=await asyncio.to_thread(_devices, inventory, [each.pid for each in processes]),
        members=list(users),
    )


async def _find(cuda: Cuda, subject: Subject) -> list[GpuProcess]:
    freezer = subject.freezer
    pids = freezer.pids() if freezer is not None else process.tree(subject.pid)
    try:
        return await find_processes(cuda, pids)
    except CudaFailed as error:
        reason = str(error)
        if not error.answered and subject.status == "paused":
            reason = "it is paused, and only processes that run can be taken off their GPUs"
        raise TargetNotCheckpointable(str(subject.target), reason) from error


def _devices(inventory: driver.Inventory, pids: Sequence[int]) -> list[Gpu]:
    """Those that the processes have device nodes of, or use: a map is made of just these."""
    nodes = [visible_minors(pid) for pid in pids]
    # The nodes of one that has none of its own are not where they are looked for.
    visible = set().union(*nodes) if all(nodes) else set()
    return [
        Gpu(uuid=gpu.uuid, model=gpu.model, memory_bytes=gpu.memory_bytes, used=used)
        for gpu in inventory.gpus
        if (used := not set(pids).isdisjoint(gpu.used_bytes or {}))
        or not visible
        or gpu.minor is None
        or gpu.minor in visible
    ]
