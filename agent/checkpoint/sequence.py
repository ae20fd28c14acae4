"""A checkpoint from beginning to end: examine, freeze and capture, store, commit.

The order is what makes it safe. The operation is journalled before anything is touched. CRIU is
held in its `post-dump` hook, the tasks frozen, until every byte is out of its pipes; and where the
target is to be stopped, until the checkpoint is committed, so that it never dies for one that is
not there. Streams are durable before the manifest is written, and the manifest is last.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from agent.capture.buffers import Closed
from agent.capture.streamer import ProtocolError
from agent.checkpoint.commit import commit
from agent.checkpoint.job import BeforeThaw, CheckpointRequest, Job
from agent.checkpoint.plain import PlainDump
from agent.checkpoint.streamed import CannotStream, StreamedDump
from agent.checkpoint.subject import Subject, examine
from agent.chunks import checkpoint_path
from agent.config import Tools
from agent.errors import DumpFailed, InvalidArgument, StoreFailed
from agent.frame import MAX_STREAMS
from agent.host import criu, network, process
from agent.host.facts import host_facts
from agent.manifest import Manifest
from agent.operation import journal
from agent.operation.freeze import thawed_afterwards
from agent.operation.recovery import thaw_abandoned
from agent.report import CheckpointResult, Observer, Phases, ignore, watched
from agent.store import Store
from agent.targets import RuncTarget

__all__ = ["CheckpointRequest", "checkpoint"]


async def checkpoint(
    request: CheckpointRequest,
    *,
    tools: Tools,
    state_dir: Path,
    observer: Observer = ignore,
) -> CheckpointResult:
    """Checkpoint a container or process tree; when this returns, it is durable and committed.

    On any error, and when cancelled, the target runs as before and nothing is stored.

    Raises:
        InvalidArgument, TargetNotFound, TargetNotCheckpointable, TargetBusy, BundleInvalid,
        StoreFailed: before the target is touched.
        DumpFailed, TargetLost, StoreFailed: during the dump or while storing.
    """
    if not 1 <= request.streams <= MAX_STREAMS:
        raise InvalidArgument("streams", f"{request.streams} is not from 1 to {MAX_STREAMS}")
    phases = Phases()
    with contextlib.ExitStack() as cleanup:
        with phases.measure("prepare"):
            thaw_abandoned(state_dir)
            subject = examine(request.target)
            cleanup.enter_context(journal.exclusive(state_dir, _lock_name(subject)))
            await asyncio.to_thread(request.store.check_writable)
            record = _record(subject, request.store)
            operation = journal.begin(state_dir, record)
            cleanup.callback(operation.remove)
            _install_launcher(request, operation, tools)
            host = await host_facts(tools)
            identity = record.checkpoint_id
            job = Job(request, subject, operation, identity, tools=tools, host=host, phases=phases)
        async with watched(observer, job.progress):
            manifest = await _capture_and_commit(job)
        return _result(job, manifest)


def _install_launcher(
    request: CheckpointRequest, operation: journal.Operation, tools: Tools
) -> None:
    """Where the target is to be stopped, the launcher looks at every request.

    A runc that would dump before it writes descriptors.json would not stream. That is noticed and
    made good afterwards, but only for a container that still runs.
    """
    hasty = isinstance(request.target, RuncTarget) and not request.stop
    criu.install_launcher(
        operation.launcher,
        tools,
        criu.unknown_to_runc(request.options),
        awaited=operation.images / "descriptors.json" if hasty else None,
    )


async def _capture_and_commit(job: Job) -> Manifest:
    """Dump and store; on any failure everything is as before and nothing is left in the store."""
    committed: Manifest | None = None

    async def before_thaw(frozen_seconds: float, fallback_reason: str | None) -> None:
        nonlocal committed
        if job.request.stop:
            committed = await commit(job, frozen_seconds, fallback_reason)

    job.pipeline.start(process.resident_bytes(job.subject.pid))
    try:
        with thawed_afterwards(job.subject.freezer):
            frozen_seconds, reason = await _dump(job, before_thaw)
        if committed is None:
            committed = await commit(job, frozen_seconds, reason)
    except BaseException as error:
        # Only one that was to be stopped and is stopped needs its checkpoint now.
        if committed is None or job.subject.status != "stopped":
            await asyncio.shield(_abandon(job))
        if isinstance(error, ProtocolError | Closed):
            reason = str(error) or "it was given up"
            raise DumpFailed(str(job.subject.target), reason) from error
        raise
    return committed.model_copy(update={"frozen_seconds": frozen_seconds})


async def _dump(job: Job, before_thaw: BeforeThaw) -> tuple[float, str | None]:
    """Seconds frozen, and why CRIU could not stream, if it could not."""
    reason = "the container has a terminal" if job.subject.terminal else None
    job.phase = "dump"
    if reason is None:
        try:
            return await StreamedDump(job, before_thaw).run(), None
        except CannotStream as unable:
            reason = str(unable)
    return await PlainDump(job, before_thaw, reason).run(), reason


async def _abandon(job: Job) -> None:
    """Undo what is left to undo when runc and CRIU have ended, in whatever way."""
    await asyncio.to_thread(_discard, job)
    if isinstance(job.subject.target, RuncTarget) and job.subject.status != "stopped":
        await network.unlock(job.subject.pid)


def _discard(job: Job) -> None:
    """End the threads; remove what is in the store already, since no manifest will name it."""
    job.pipeline.abort()
    with contextlib.suppress(StoreFailed):
        job.request.store.discard(job.checkpoint_id)


def _result(job: Job, manifest: Manifest) -> CheckpointResult:
    return CheckpointResult(
        checkpoint_id=manifest.checkpoint_id,
        path=checkpoint_path(job.request.store, manifest.checkpoint_id),
        name=manifest.name,
        frozen_seconds=round(manifest.frozen_seconds, 6),
        wall_seconds=round(job.phases.wall(), 6),
        phases=job.phases.summary(),
        bytes_raw=manifest.bytes_raw,
        bytes_stored=manifest.bytes_stored,
        chunks=len(manifest.chunks),
        streams=len(manifest.streams),
        codec=manifest.codec,
        streamed=manifest.streamed,
        fallback_reason=manifest.fallback_reason,
        stopped=job.request.stop,
    )


def _lock_name(subject: Subject) -> str:
    where = f" under {subject.runc_root}" if subject.runc_root else ""
    return f"{subject.target}{where}"


def _record(subject: Subject, store: Store) -> journal.Record:
    target, freezer = subject.target, subject.freezer
    thaw = freezer if freezer and not freezer.is_frozen() else None
    identity = journal.new_id()
    return journal.Record(
        kind="checkpoint",
        operation=identity,
        checkpoint_id=identity,
        store=store.url,
        target=str(target),
        container=target.container if isinstance(target, RuncTarget) else None,
        runc_root=subject.runc_root,
        freezer=str(thaw.path) if thaw else None,
        freezer_version=thaw.version if thaw else 0,
    )
