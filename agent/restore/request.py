"""Which checkpoint is to be brought back, and what its members are to be called and stand on."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path

from agent.host.injecting import NOTHING, Injection
from agent.manifest import Manifest, Member, Options
from agent.store import Store
from agent.targets import RuncTarget


@dataclass(frozen=True, slots=True)
class RestoreRequest:
    """A checkpoint, all of its members unless one is named.

    Attributes:
        container: a new id, for one member.
        bundle: another bundle, for one member.
        runc_root: where runc is to keep the containers, instead of where it did.
        member: the name of the only one wanted.
        options: what of it was set takes the place of what was given at the dump.
        container_prefix: containers are called ``PREFIX-MEMBER`` instead of what they were.
    """

    store: Store
    checkpoint_id: str
    container: str | None = None
    bundle: Path | None = None
    runc_root: Path | None = None
    member: str | None = None
    options: Options | None = None
    container_prefix: str | None = None


@dataclass(frozen=True, slots=True)
class RestoreTarget:
    """What a member becomes: a container under runc, or a process tree with the pids it had.

    ``network`` is the namespace that a failed restore would leave locked, and ``locked`` whether it
    is to stay so. ``mounts`` are those of NVIDIA's driver that runc does not know.
    """

    member: Member
    runc: RuncTarget | None = None
    bundle: Path | None = None
    network: Path | None = None
    locked: bool = False
    mounts: Injection = NOTHING

    @property
    def name(self) -> str:
        """The container's id, or the pid."""
        return self.runc.container if self.runc else self.member.target

    @property
    def lock_name(self) -> str:
        """The same as for a checkpoint of it."""
        return f"{self.runc} under {self.runc.root}" if self.runc else f"process {self.name}"


def not_restored(
    manifest: Manifest, targets: list[RestoreTarget], filled: Container[str]
) -> list[str]:
    """What the checkpoint has of these members that nobody put back: files beside processes.

    Args:
        filled: the names of members whose layers are back.
    """
    wanted = {target.member.name for target in targets}
    layers = [
        f"{member.name}/{image.name}"
        for member in manifest.members
        if member.name in wanted and member.name not in filled
        for image in member.images
        if image.kind == "rootfs"
    ]
    return layers + [f"volumes/{volume.name}" for volume in manifest.volumes]
