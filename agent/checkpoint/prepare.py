"""What happens before anything is touched: every reason to refuse, the journal, the launchers."""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import dataclass, replace
from pathlib import Path

from agent.checkpoint.gpus import record_gpus, with_gpu_processes
from agent.checkpoint.request import CheckpointRequest
from agent.checkpoint.subject import Subject, examine
from agent.chunks import checkpoint_path
from agent.config import Tools
from agent.errors import AlreadyExists, InvalidArgument, TargetNotCheckpointable
from agent.host import criu, injected, overlay, tar
from agent.host.cuda import Cuda
from agent.host.shield import to_the_end
from agent.manifest import Gpus
from agent.operation import journal
from agent.operation.workplace import Workplace
from agent.targets import Kind, RuncTarget


@dataclass(frozen=True, slots=True)
class Prepared:
    """Members that can be taken now and are this operation's alone, and where it works."""

    checkpoint_id: str
    subjects: list[Subject]
    gpus: Gpus | None
    operation: journal.Operation
    places: list[Workplace]


async def prepare(
    request: CheckpointRequest,
    tools: Tools,
    cuda: Cuda,
    state_dir: Path,
    cleanup: contextlib.ExitStack,
) -> Prepared:
    """Find out, lock and write down everything. What was done is undone by ``cleanup``.

    Raises:
        InvalidArgument, TargetNotFound, TargetNotCheckpointable, TargetBusy, BundleInvalid,
        MissingTool, AlreadyExists, StoreFailed: nothing was touched.
    """
    request.check()
    if request.needs_runc:
        tools.require_runc()
    subjects = await asyncio.to_thread(_examine, request)
    names = [_lock_name(subject) for subject in subjects]
    if len(set(names)) < len(names):
        raise InvalidArgument("members", "one of them is there twice")
    for name in names:
        cleanup.enter_context(journal.exclusive(state_dir, name))
    gpus = None
    if request.kind is not Kind.ROOTFS_ONLY:
        subjects = await with_gpu_processes(cuda, subjects)
        labels = [member.label for member in request.members]
        gpus = await record_gpus(cuda, dict(zip(labels, subjects, strict=True)))
    await asyncio.to_thread(request.store.check_writable)
    await asyncio.to_thread(_check_vacant, request)

    def begin() -> Prepared:
        record = _record(request, subjects)
        operation = journal.begin(state_dir, record)
        cleanup.callback(operation.remove)
        places = operation.workplaces(len(subjects))
        for subject, place in zip(subjects, places, strict=True):
            _install_launcher(request, subject, place, tools)
        return Prepared(record.checkpoint_id, subjects, gpus, operation, places)

    # To its end: what the thread has begun has to be undone.
    return await to_the_end(asyncio.to_thread(begin))


def _examine(request: CheckpointRequest) -> list[Subject]:
    if request.kind is not Kind.SIMPLE or request.volumes:
        tar.require()
    for volume in request.volumes:
        if not volume.source.is_dir():
            reason = f"its volume {volume.name!r} is no directory: {volume.source}"
            raise TargetNotCheckpointable(str(request), reason)
    subjects = [examine(member.target) for member in request.members]
    if request.is_plain:
        return subjects
    for subject in subjects:
        if subject.freezer is None:
            reason = "it has no cgroup of its own that can be frozen together with others"
            raise TargetNotCheckpointable(str(subject.target), reason)
    if request.kind is Kind.SIMPLE:
        return subjects
    return [replace(subject, layer=_layer(subject)) for subject in subjects]


def _layer(subject: Subject) -> Path:
    """Where a container's changes to its root filesystem are."""
    layer = overlay.writable_layer(subject.bundle, subject.pid) if subject.bundle else None
    if layer is None:
        reason = "its root filesystem is no overlay with a writable layer"
        raise TargetNotCheckpointable(str(subject.target), reason)
    return layer


def _check_vacant(request: CheckpointRequest) -> None:
    """A given id may have been used before: a failure would remove what is there."""
    chosen = request.checkpoint_id
    if chosen is not None and request.store.list(chosen):
        raise AlreadyExists("checkpoint", checkpoint_path(request.store, chosen))


def _install_launcher(
    request: CheckpointRequest, subject: Subject, place: Workplace, tools: Tools
) -> None:
    """Where the target is to be stopped by CRIU, the launcher looks at every request.

    A runc that would dump before it writes descriptors.json would not stream. That is noticed and
    made good afterwards, but only for a container that still runs.
    """
    stops = request.stop and request.is_plain
    hasty = isinstance(subject.target, RuncTarget) and not stops
    criu.install_launcher(
        place.launcher,
        tools,
        [*criu.unknown_to_runc(request.options), *_injected(subject)],
        awaited=place.images / "descriptors.json" if hasty else None,
    )


def _injected(subject: Subject) -> list[str]:
    """What CRIU has to be told of mounts that NVIDIA's hook made, and runc cannot tell it."""
    if subject.config is None:
        return []
    return injected.dump_words(injected.find_injected(subject.pid, json.loads(subject.config)))


def _lock_name(subject: Subject) -> str:
    where = f" under {subject.runc_root}" if subject.runc_root else ""
    return f"{subject.target}{where}"


def _record(request: CheckpointRequest, subjects: list[Subject]) -> journal.Record:
    identity = journal.new_id()
    return journal.Record(
        kind="checkpoint",
        operation=identity,
        checkpoint_id=request.checkpoint_id or identity,
        store=request.store.url,
        target=str(request),
        affected=tuple(_affected(subject) for subject in subjects),
    )


def _affected(subject: Subject) -> journal.Affected:
    target, freezer = subject.target, subject.freezer
    thaw = freezer if freezer and not freezer.is_frozen() else None
    return journal.Affected(
        container=target.container if isinstance(target, RuncTarget) else None,
        runc_root=subject.runc_root,
        freezer=str(thaw.path) if thaw else None,
        freezer_version=thaw.version if thaw else 0,
        root=(subject.pid, subject.started),
        network=str(subject.joined) if subject.joined else None,
        gpu_processes=tuple((each.pid, each.started) for each in subject.gpu_processes),
    )
