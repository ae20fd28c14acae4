"""A restore from beginning to end: read the manifest, prepare, serve the images to CRIU, hand over.

Nothing is unpacked: CRIU asks for images over a socket and gets them from chunks that are read and
decompressed ahead of it. Only where CRIU cannot be asked to stream (runc has a configuration file
for it) do the images become files for a while.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from agent.chunks import ChunkReader, checkpoint_path, read_image, read_manifest
from agent.config import DEFAULT_RUNC_ROOT, Tools
from agent.errors import AlreadyExists, InvalidArgument, RestoreFailed
from agent.host import criu, process, runc
from agent.manifest import Manifest, Member
from agent.operation import journal
from agent.operation.recovery import thaw_abandoned
from agent.report import Observer, Phases, RestoreResult, Update, ignore, watched
from agent.restore.bundle import find_bundle
from agent.restore.restoration import Restoration, RestoreRequest, RestoreTarget
from agent.targets import RuncTarget

__all__ = ["RestoreRequest", "restore"]


async def restore(
    request: RestoreRequest,
    *,
    tools: Tools,
    state_dir: Path,
    observer: Observer = ignore,
) -> RestoreResult:
    """Bring a checkpoint back to life; when this returns, it runs.

    On any error, and when cancelled, nothing of it is left running.

    Raises:
        CheckpointNotFound, CheckpointCorrupt, FormatTooNew, StoreFailed: of the checkpoint.
        InvalidArgument, AlreadyExists, BundleInvalid, TargetBusy: before anything is started.
        RestoreFailed: runc or CRIU could not.
    """
    phases = Phases()
    with contextlib.ExitStack() as cleanup:
        with phases.measure("prepare"):
            thaw_abandoned(state_dir)
            manifest = await asyncio.to_thread(read_manifest, request.store, request.checkpoint_id)
            target = await asyncio.to_thread(_target, request, manifest, state_dir)
            cleanup.enter_context(journal.exclusive(state_dir, target.lock_name))
            operation = journal.begin(state_dir, _record(request, target))
            cleanup.callback(operation.remove)
            extra = criu.unknown_to_runc(target.member.options)
            criu.install_launcher(operation.launcher, tools, extra)
        restoration = Restoration(request, manifest, target, operation, tools=tools, phases=phases)

        def progress() -> Update:
            served, total = restoration.bytes_served, manifest.bytes_raw
            return Update("restore", served, manifest.bytes_stored, total)

        async with watched(observer, progress):
            pid = await restoration.run()
    return RestoreResult(
        path=checkpoint_path(request.store, request.checkpoint_id),
        kind=target.member.kind,
        target=target.name,
        pid=pid,
        wall_seconds=round(phases.wall(), 6),
        phases=phases.summary(),
        bytes_raw=manifest.bytes_raw,
        bytes_stored=manifest.bytes_stored,
        streamed=restoration.fallback_reason is None,
        fallback_reason=restoration.fallback_reason,
    )


def _target(request: RestoreRequest, manifest: Manifest, state_dir: Path) -> RestoreTarget:
    if len(manifest.members) != 1:
        raise InvalidArgument("path", f"it has {len(manifest.members)} members, not one")
    member = manifest.members[0]
    if member.kind == "process":
        return _process_target(request, member)
    return _container_target(request, manifest, member, state_dir)


def _process_target(request: RestoreRequest, member: Member) -> RestoreTarget:
    if request.container or request.bundle or request.runc_root:
        raise InvalidArgument("path", "it is a process tree: it takes no id, bundle or runc root")
    if process.is_taken(member.pid):
        raise AlreadyExists("process", str(member.pid))
    return RestoreTarget(member)


def _container_target(
    request: RestoreRequest, manifest: Manifest, member: Member, state_dir: Path
) -> RestoreTarget:
    container = request.container or member.target
    if not runc.is_valid_id(container):
        raise InvalidArgument("id", f"{container!r} is no container id")
    root = request.runc_root or Path(member.runc_root or DEFAULT_RUNC_ROOT)
    target = RuncTarget(container, root.absolute())
    if runc.exists(target):
        raise AlreadyExists("container", container)
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
    return RestoreTarget(member, target, bundle)


def _record(request: RestoreRequest, target: RestoreTarget) -> journal.Record:
    return journal.Record(
        kind="restore",
        operation=journal.new_id(),
        checkpoint_id=request.checkpoint_id,
        store=request.store.url,
        target=target.name,
        container=target.runc.container if target.runc else None,
        runc_root=str(target.runc.root) if target.runc else None,
    )
