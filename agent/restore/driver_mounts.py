"""What a container that is restored needs of NVIDIA's driver: mounts, and device nodes. Blocks."""

from __future__ import annotations

from pathlib import Path

from agent.chunks import ChunkCache, ChunkReader, read_image
from agent.errors import CheckpointCorrupt, RestoreFailed
from agent.host import devices, runc
from agent.host.injecting import NOTHING, Injection, Recorded, inject, read_mounts
from agent.manifest import Manifest, Member
from agent.restore.bundle import root_of
from agent.store import Store

# Of all images of a member that are read here: CRIU's table of mounts has some KiB.
_CACHE_BYTES = 8 << 20


def driver_mounts(
    store: Store, manifest: Manifest, member: Member, bundle: Path, name: str, config: bytes
) -> Injection:
    """What CRIU has to be told of mounts, and runc will not tell it.

    Args:
        bundle: of the container that is restored, which may mount files of another version.
        name: of that container.
        config: of a container, the old or the new one; images are only read where it tells of
            NVIDIA's runtime, by variables, hooks or mounts.

    Raises:
        BundleInvalid: its configuration cannot be read.
        RestoreFailed: this machine lacks a file of the driver that the checkpoint has mounted.
        CheckpointCorrupt, StoreFailed: of the checkpoint.
    """
    if b"nvidia" not in config.lower():
        return NOTHING
    chunks = ChunkCache(ChunkReader(store, manifest), _CACHE_BYTES)
    recorded: list[Recorded] = []
    for image in member.images:
        if image.name.startswith("mountpoints-"):
            try:
                recorded += read_mounts(read_image(chunks, image))
            except ValueError as error:
                path = f"{store.url}/{manifest.checkpoint_id}"
                raise CheckpointCorrupt(path, f"{image.name}: {error}") from error
    try:
        return inject(recorded, runc.read_config(bundle))
    except FileNotFoundError as missing:
        reason = f"NVIDIA's driver had {missing} mounted in it, and this machine has none for it"
        raise RestoreFailed(name, reason) from None


def make_points(mounts: Injection, bundle: Path, name: str) -> None:
    """Before the restore: what is mounted over has to be there. Raises RestoreFailed."""
    if not mounts.points:
        return
    try:
        mounts.prepare(root_of(bundle))
    except OSError as error:
        reason = f"a mount point in its root filesystem cannot be made: {error}"
        raise RestoreFailed(name, reason) from error


def renew_devices(pid: int, bundle: Path, name: str) -> None:
    """After it: nodes of the numbers that this machine's devices have. Raises RestoreFailed."""
    try:
        devices.renew(pid, runc.read_config(bundle))
    except OSError as error:
        raise RestoreFailed(name, f"its device nodes cannot be made: {error}") from error
