"""What members had on GPUs goes back onto GPUs: planned before the restore, done after it.

CRIU brings back processes that the driver had checkpointed: they hold it in their memory, and wait.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from agent.errors import RestoreFailed
from agent.gpu import check_driver, device_map, find_processes, resume
from agent.gpu.gate import Impossible
from agent.host import process
from agent.host.cuda import Cuda, CudaFailed, CudaState
from agent.manifest import Manifest


@dataclass(frozen=True, slots=True)
class GpuPlan:
    """Which GPU here takes the place of which; no ``devices`` when all stay the same."""

    cuda: Cuda
    members: frozenset[str]
    devices: Mapping[str, str]

    @classmethod
    async def make(cls, cuda: Cuda, manifest: Manifest, names: Collection[str]) -> GpuPlan:
        """For the members of these names.

        Raises:
            RestoreFailed: this machine has no such GPUs. Nothing was touched.
        """
        gpus = manifest.gpus
        members = frozenset(names) & frozenset(gpus.members if gpus else ())
        if gpus is None or not members:
            return cls(cuda, frozenset(), {})
        try:
            inventory = await cuda.inventory()
            check_driver(gpus.driver, inventory)
            devices = device_map(gpus.devices, inventory)
        except (CudaFailed, Impossible) as reason:
            raise RestoreFailed(_title(manifest), str(reason)) from None
        return cls(cuda, members, devices)

    async def bring_back(self, member: str, pid: int) -> None:
        """Bring a member that runs again back onto its GPUs, and let it use them.

        Args:
            pid: its first process. Those below it are looked at too.

        Raises:
            RestoreFailed: it waits for its GPU still; the caller ends it.
        """
        if member not in self.members:
            return
        try:
            found = await find_processes(self.cuda, process.tree(pid))
            waiting = [each for each in found if each.state is not CudaState.RUNNING]
            if not waiting:
                raise RestoreFailed(member, "no process of it has anything for a GPU any more")
            await resume(self.cuda, waiting, self.devices)
        except CudaFailed as error:
            raise RestoreFailed(member, f"it is not back on its GPUs: {error}") from error


def _title(manifest: Manifest) -> str:
    pod = manifest.pod
    return f"pod {pod.namespace}/{pod.name}" if pod else manifest.checkpoint_id
