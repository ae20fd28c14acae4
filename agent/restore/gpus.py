"""What members had on GPUs goes back onto GPUs: planned before the restore, done after it.

CRIU brings back processes that the driver had checkpointed: they hold it in their memory, and wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from agent.errors import RestoreFailed
from agent.gpu import GPU_NODE, check_driver, device_map, find_processes, resume
from agent.gpu.gate import Impossible
from agent.host import process, runc
from agent.host.cuda import Cuda, CudaFailed, CudaState
from agent.manifest import Manifest


@dataclass(frozen=True, slots=True)
class GpuPlan:
    """Which GPU here takes the place of which; no ``devices`` when all stay the same."""

    cuda: Cuda
    members: frozenset[str]
    devices: Mapping[str, str]

    @classmethod
    async def make(
        cls, cuda: Cuda, manifest: Manifest, bundles: Mapping[str, Path | None]
    ) -> GpuPlan:
        """For these of its members.

        Args:
            bundles: of the containers that they become, by their names; None for a process.

        Raises:
            RestoreFailed: this machine has no such GPUs. Nothing was touched.
            BundleInvalid: a bundle's configuration cannot be read.
        """
        gpus = manifest.gpus
        members = frozenset(bundles) & frozenset(gpus.members if gpus else ())
        if gpus is None or not members:
            return cls(cuda, frozenset(), {})
        given: set[int] = set()
        # Nobody knows which of the GPUs were those of a part of the members.
        if members == set(gpus.members):
            given = await asyncio.to_thread(_given, [bundles[name] for name in members])
        try:
            inventory = await cuda.inventory()
            check_driver(gpus.driver, inventory)
            devices = device_map(gpus.devices, inventory, given)
        except (CudaFailed, Impossible) as reason:
            raise RestoreFailed(_title(manifest), str(reason)) from None
        return cls(cuda, members, devices)

    async def bring_back(self, member: str, pid: int) -> None:
        """Bring a member that runs again back onto its GPUs, and let it use them.

        Args:
            pid: its first process. Those below it are looked at too.

        Raises:
            RestoreFailed: it waits for its GPU still, and the caller ends it; or it has ended.
        """
        if member not in self.members:
            return
        first = process.stat(pid)
        try:
            found = await find_processes(self.cuda, process.tree(pid))
            if not found:
                raise RestoreFailed(member, "no process of it has anything for a GPU any more")
            # A CRIU that has NVIDIA's plug-in may have brought some back already.
            waiting = [each for each in found if each.state is not CudaState.RUNNING]
            await resume(self.cuda, waiting, self.devices)
        except CudaFailed as error:
            raise RestoreFailed(member, f"it is not back on its GPUs: {error}") from error
        # The driver takes one that is gone for done.
        if first is None or not process.is_alive(pid, first.started):
            raise RestoreFailed(member, "it ended on its way back onto its GPUs")


def _given(bundles: Iterable[Path | None]) -> set[int]:
    """Minor numbers of the GPUs that containers were given as devices; none when nobody says."""
    each = [_gpu_minors(runc.read_config(bundle)) if bundle else set() for bundle in bundles]
    return set().union(*each) if all(each) else set()


def _gpu_minors(config: Mapping[str, Any]) -> set[int]:
    """Of the GPUs among ``linux.devices``, where CDI puts them; the older hook names none."""
    devices = (config.get("linux") or {}).get("devices") or ()
    return {
        int(device.get("minor", 0))
        for device in devices
        if GPU_NODE.fullmatch(PurePosixPath(device["path"]).name)
    }


def _title(manifest: Manifest) -> str:
    pod = manifest.pod
    return f"pod {pod.namespace}/{pod.name}" if pod else manifest.checkpoint_id
