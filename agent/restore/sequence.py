"""A restore from beginning to end: read the manifest, prepare, serve the images to CRIU, hand over.

No image is unpacked: CRIU asks for them over a socket and gets them from chunks that are read and
decompressed ahead of it. Only where CRIU cannot be asked to stream (runc has a configuration file
for it) do the images become files for a while.

Members come back one after the other: each has a core or more to itself, and the first that fails
takes those before it along.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Container, Sequence
from functools import partial
from pathlib import Path

from agent.chunks import checkpoint_path, read_manifest
from agent.config import Tools
from agent.errors import AgentError
from agent.host import criu
from agent.host.cuda import Cuda
from agent.host.shield import to_the_end
from agent.manifest import Manifest
from agent.operation import journal
from agent.operation.attempt import install_launcher
from agent.operation.layers import has_left_layers
from agent.operation.recovery import recover_all, thaw_abandoned
from agent.operation.workplace import Workplace
from agent.report import (
    Observer,
    Phases,
    RestoredMember,
    RestoreResult,
    Update,
    ignore,
    watched,
)
from agent.restore.gpus import GpuPlan
from agent.restore.layers import Layers
from agent.restore.network import with_network
from agent.restore.request import RestoreRequest, RestoreTarget, not_restored
from agent.restore.restoration import Restoration, not_undone
from agent.restore.target import check_vacant, find_targets

__all__ = ["RestoreRequest", "restore"]


async def restore(
    request: RestoreRequest,
    *,
    tools: Tools,
    state_dir: Path,
    observer: Observer = ignore,
    cuda: Cuda | None = None,
) -> RestoreResult:
    """Bring a checkpoint back to life; when this returns, it runs.

    All its members or none: on any error, and when cancelled, nothing of it is left running.
    A writable layer is unpacked where the bundle's root filesystem is an overlay that nobody has
    written to, and removed again when the restore fails. Other layers and all volumes are named in
    the result's ``not_restored``: whoever makes them has to fill them before.

    Raises:
        CheckpointNotFound, CheckpointCorrupt, FormatTooNew, StoreFailed: of the checkpoint.
        InvalidArgument, AlreadyExists, BundleInvalid, MissingTool, TargetBusy: before anything is
        started.
        RestoreFailed: runc or CRIU could not.
        NetworkStuck: the same, and whoever is in the network it was to be in may be cut off.
        RestoreNotUndone: the same, and something may be left of it.
    """
    cleanup = contextlib.ExitStack()
    try:
        if cuda is not None:
            return await _restore(request, tools, state_dir, observer, cuda, cleanup)
        async with contextlib.aclosing(Cuda()) as own:
            return await _restore(request, tools, state_dir, observer, own, cleanup)
    finally:
        # In a thread: where CRIU could not stream, there are all images to remove.
        await to_the_end(asyncio.to_thread(cleanup.close))


async def _restore(
    request: RestoreRequest,
    tools: Tools,
    state_dir: Path,
    observer: Observer,
    cuda: Cuda,
    cleanup: contextlib.ExitStack,
) -> RestoreResult:
    phases = Phases()
    with phases.measure("prepare"):
        await _clear(state_dir, tools)
        manifest = await asyncio.to_thread(read_manifest, request.store, request.checkpoint_id)
        targets, gpus = await _plan(request, manifest, state_dir, cuda)
        if any(target.runc for target in targets):
            tools.require_runc()
        begin = partial(_begin, request, targets, tools, state_dir, cleanup)
        # To its end: what the thread has begun has to be undone.
        places = await to_the_end(asyncio.to_thread(begin))
    restorations = [
        Restoration(request.store, manifest, target, place, tools=tools, phases=phases, gpus=gpus)
        for target, place in zip(targets, places, strict=True)
    ]

    def progress() -> Update:
        served = sum(restoration.bytes_served for restoration in restorations)
        return Update("restore", served, manifest.bytes_stored, _bytes_raw(targets))

    layers = Layers(request.store, manifest, targets, places, phases)
    async with watched(observer, progress):
        pids = await _run(layers, restorations)
    return _result(request, manifest, restorations, pids, phases, layers.filled)


async def _clear(state_dir: Path, tools: Tools) -> None:
    """What dead agents have left frozen, or taken down, may be what is to be restored."""
    await asyncio.to_thread(thaw_abandoned, state_dir)
    if await asyncio.to_thread(has_left_layers, state_dir):
        await recover_all(tools=lambda: tools, state_dir=state_dir)


async def _plan(
    request: RestoreRequest, manifest: Manifest, state_dir: Path, cuda: Cuda
) -> tuple[list[RestoreTarget], GpuPlan]:
    """What its members become, and on which GPUs; nothing is touched."""
    found = await asyncio.to_thread(find_targets, request, manifest, state_dir)
    targets = [await with_network(target) for target in found]
    bundles = {target.member.name: target.bundle for target in targets}
    return targets, await GpuPlan.make(cuda, manifest, bundles)


def _begin(
    request: RestoreRequest,
    targets: Sequence[RestoreTarget],
    tools: Tools,
    state_dir: Path,
    cleanup: contextlib.ExitStack,
) -> list[Workplace]:
    """Lock the targets and write down what is about to be done to them."""
    for target in targets:
        cleanup.enter_context(journal.exclusive(state_dir, target.lock_name))
        # Another one may have made it since it was looked for.
        check_vacant(target)
    operation = journal.begin(state_dir, _record(request, targets))
    cleanup.callback(operation.remove)
    places = operation.workplaces(len(targets))
    for target, place in zip(targets, places, strict=True):
        words = [*criu.unknown_to_runc(target.member.options), *target.mounts.words]
        install_launcher(place, tools, words)
    return places


async def _run(layers: Layers, restorations: Sequence[Restoration]) -> list[int]:
    """Restore one after the other; the pids. What runs already is removed if a later one fails."""
    pids: list[int] = []
    try:
        await layers.fill()
        for restoration in restorations:
            pids.append(await restoration.run())
    except BaseException as error:
        try:
            await to_the_end(_undo(layers, restorations[: len(pids)]))
        except (AgentError, OSError) as left:
            names = ", ".join(restoration.target.name for restoration in restorations)
            raise not_undone(names, error, left) from error
        raise
    return pids


async def _undo(layers: Layers, restorations: Sequence[Restoration]) -> None:
    """All of it, whatever else fails. Raises the first failure."""
    failure: Exception | None = None
    for undo in [*(restoration.undo for restoration in restorations), layers.undo]:
        try:
            await undo()
        except (AgentError, OSError) as error:
            failure = failure or error
    if failure is not None:
        raise failure


def _result(
    request: RestoreRequest,
    manifest: Manifest,
    restorations: Sequence[Restoration],
    pids: Sequence[int],
    phases: Phases,
    filled: Container[str],
) -> RestoreResult:
    targets = [restoration.target for restoration in restorations]
    reasons = [one.fallback_reason for one in restorations if one.fallback_reason]
    return RestoreResult(
        path=checkpoint_path(request.store, request.checkpoint_id),
        kind=targets[0].member.kind,
        target=targets[0].name,
        pid=pids[0],
        wall_seconds=round(phases.wall(), 6),
        phases=phases.summary(),
        bytes_raw=_bytes_raw(targets),
        bytes_stored=manifest.bytes_stored,
        streamed=not reasons,
        fallback_reason="; ".join(dict.fromkeys(reasons)) or None,
        members=[
            RestoredMember(target.member.name, target.name if target.runc else "", pid)
            for target, pid in zip(targets, pids, strict=True)
        ],
        not_restored=not_restored(manifest, targets, filled),
    )


def _bytes_raw(targets: Sequence[RestoreTarget]) -> int:
    return sum(image.size for target in targets for image in target.member.images)


def _record(request: RestoreRequest, targets: Sequence[RestoreTarget]) -> journal.Record:
    return journal.Record(
        kind="restore",
        operation=journal.new_id(),
        checkpoint_id=request.checkpoint_id,
        store=request.store.url,
        target=", ".join(target.name for target in targets),
        affected=tuple(
            journal.Affected(
                container=target.runc.container if target.runc else None,
                runc_root=str(target.runc.root) if target.runc else None,
                network=str(target.network) if target.network and not target.locked else None,
            )
            for target in targets
        ),
    )
