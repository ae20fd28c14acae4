"""What a checkpoint's members become, and every reason why they cannot. Blocks."""

from __future__ import annotations

from pathlib import Path

from agent.chunks import ChunkReader, read_image
from agent.config import DEFAULT_RUNC_ROOT
from agent.errors import AlreadyExists, InvalidArgument, RestoreFailed
from agent.host import process, runc
from agent.manifest import Manifest, Member
from agent.restore.bundle import find_bundle
from agent.restore.driver_mounts import driver_mounts
from agent.restore.options import merged
from agent.restore.request import RestoreRequest, RestoreTarget
from agent.targets import RuncTarget


def find_targets(
    request: RestoreRequest, manifest: Manifest, state_dir: Path
) -> list[RestoreTarget]:
    """One for each member that is wanted.

    Raises:
        InvalidArgument, AlreadyExists, BundleInvalid, RestoreFailed: nothing was touched.
        CheckpointCorrupt, StoreFailed: of the checkpoint.
    """
    if manifest.kind == "rootfsonly":
        raise InvalidArgument("path", "it has root filesystems only: there is nothing to run")
    members = manifest.members
    if request.member is not None:
        members = [member for member in members if member.name == request.member]
        if not members:
            names = ", ".join(member.name for member in manifest.members)
            raise InvalidArgument("member", f"{request.member!r} is none of {names}")
    if len(members) > 1:
        _refuse_what_is_for_one(request, len(members))
    found = [_target(request, manifest, member, state_dir) for member in members]
    for target in found:
        if [each.name for each in found].count(target.name) > 1:
            raise InvalidArgument("path", f"two of its members would be called {target.name!r}")
    return found


def _refuse_what_is_for_one(request: RestoreRequest, members: int) -> None:
    for argument, value in {"id": request.container, "bundle": request.bundle}.items():
        if value is not None:
            raise InvalidArgument(argument, f"it is for one container; there are {members} of them")


def _target(
    request: RestoreRequest, manifest: Manifest, member: Member, state_dir: Path
) -> RestoreTarget:
    wanted = member.model_copy(
        update={
            "options": merged(member.options, request.options),
            # What somebody has to unpack first is not CRIU's.
            "images": [image for image in member.images if image.kind != "rootfs"],
        }
    )
    if member.kind == "process":
        return _process_target(request, wanted)
    return _container_target(request, manifest, wanted, state_dir)


def _process_target(request: RestoreRequest, member: Member) -> RestoreTarget:
    if request.container or request.bundle or request.runc_root or request.container_prefix:
        raise InvalidArgument("path", "it is a process tree: it takes no id, bundle or runc root")
    target = RestoreTarget(member)
    check_vacant(target)
    return target


def check_vacant(target: RestoreTarget) -> None:
    """Raises AlreadyExists: there is one of that name, which a failure is not to take along."""
    if target.runc is None:
        if process.is_taken(target.member.pid):
            raise AlreadyExists("process", target.name)
    elif runc.exists(target.runc):
        raise AlreadyExists("container", target.name)


def container_of(request: RestoreRequest, member: Member) -> RuncTarget:
    """What a member that is a container is called when it is restored, and where runc keeps it."""
    container = request.container or member.target
    if request.container is None and request.container_prefix is not None:
        container = f"{request.container_prefix}-{member.name}"
    root = request.runc_root or Path(member.runc_root or DEFAULT_RUNC_ROOT)
    return RuncTarget(container, root.absolute())


def _container_target(
    request: RestoreRequest, manifest: Manifest, member: Member, state_dir: Path
) -> RestoreTarget:
    target = container_of(request, member)
    container = target.container
    if not runc.is_valid_id(container):
        raise InvalidArgument("id", f"{container!r} is no container id")
    check_vacant(RestoreTarget(member, target))
    if member.terminal:
        # runc hands the new terminal to whoever listens on a console socket and keeps it open: the
        # agent, which ends with the restore, cannot be that.
        raise RestoreFailed(
            container,
            "it has a terminal, which somebody has to keep open: export the checkpoint, then"
            " `runc restore --detach --console-socket SOCKET --image-path DIR`",
        )
    saved = member.image("config.json")
    config = read_image(ChunkReader(request.store, manifest), saved) if saved else None
    home = state_dir / "bundles" / container
    bundle = find_bundle(request.bundle, member.bundle, config, home)
    mounts = driver_mounts(request.store, manifest, member, bundle, container, config or b"")
    return RestoreTarget(member, target, bundle, mounts=mounts)
