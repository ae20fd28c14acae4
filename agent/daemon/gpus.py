"""The node's GPUs as they were a moment ago, and which pod uses which."""

from __future__ import annotations

import asyncio
from typing import Final

from agent.errors import TargetNotFound
from agent.host import runc
from agent.host.cuda import Cuda, CudaFailed, Inventory
from agent.logs import get_logger
from agent.pods import FoundPod
from agent.targets import RuncTarget

log = get_logger(__name__)

# Seconds between two looks. Pods come and go, GPUs hardly ever.
_INTERVAL: Final = 15.0


class NodeGpus:
    """What the driver says, asked for now and then: it may take its time, and nobody waits for it.

    Attributes:
        inventory: nothing until it has answered once, and where there is no driver any more.
    """

    def __init__(self, cuda: Cuda) -> None:
        self.inventory = Inventory()
        self._cuda = cuda
        self._problem = ""

    async def run(self) -> None:
        """Look again and again, until cancelled: a driver may be installed later, and replaced."""
        while True:
            if self._cuda.is_there:
                await self._look()
            else:
                self.inventory = Inventory()
            await asyncio.sleep(_INTERVAL)

    async def _look(self) -> None:
        try:
            self.inventory = await self._cuda.inventory()
            problem = ""
        except CudaFailed as error:
            problem = str(error)
        if problem != self._problem:
            self._problem = problem
            if problem:
                log.warning("the GPU driver does not tell which GPUs there are", reason=problem)

    def used_by(self, pod: FoundPod) -> list[str]:
        """UUIDs of the GPUs that a pod's processes use. Reads its cgroups if any GPU is used."""
        used = {gpu.uuid: set(gpu.used_bytes or ()) for gpu in self.inventory.gpus}
        if not any(used.values()):
            return []
        pids = {pid for container in pod.containers for pid in _pids(container.target)}
        return [uuid for uuid, users in used.items() if users & pids]


def _pids(target: RuncTarget) -> list[int]:
    try:
        freezer = runc.load(target).freezer
    except TargetNotFound:  # it has just ended
        return []
    return freezer.pids() if freezer is not None else []
