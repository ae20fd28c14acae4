"""A checkpoint from beginning to end: prepare, freeze and capture, store, commit.

The order is what makes it safe. The operation is journalled before anything is touched. CRIU is
held in its `post-dump` hook, the tasks frozen, until every byte is out of its pipes; and where the
target is to be stopped, until the checkpoint is committed, so that it never dies for one that is
not there. Several members, or files beside them, are frozen by their cgroups around all of that.
Streams are durable before the manifest is written, and the manifest is last.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from agent.capture.buffers import Closed, SharedPool
from agent.capture.streamer import ProtocolError
from agent.checkpoint.commit import commit
from agent.checkpoint.job import BeforeThaw, Job, Surroundings, Taken
from agent.checkpoint.member import dump_member
from agent.checkpoint.moment import Moment
from agent.checkpoint.prepare import prepare
from agent.checkpoint.request import CheckpointRequest
from agent.chunks import checkpoint_path
from agent.config import Tools
from agent.errors import DumpFailed, StoreFailed
from agent.host import network, process
from agent.host.facts import host_facts
from agent.host.shield import to_the_end
from agent.manifest import Manifest
from agent.operation.freeze import thawed_afterwards
from agent.operation.recovery import thaw_abandoned
from agent.report import (
    CheckpointResult,
    Observer,
    OnCaptured,
    Phases,
    ignore,
    ignore_captured,
    watched,
)
from agent.targets import RuncTarget

__all__ = ["CheckpointRequest", "checkpoint"]


async def checkpoint(
    request: CheckpointRequest,
    *,
    tools: Tools,
    state_dir: Path,
    observer: Observer = ignore,
    on_captured: OnCaptured = ignore_captured,
    pool: SharedPool | None = None,
) -> CheckpointResult:
    """Checkpoint containers or a process tree; when this returns, it is durable and committed.

    On any error, and when cancelled, all members run as before and nothing is stored.

    Args:
        on_captured: called once, when all run again and nothing more is needed of them; with
            ``stop``, when they are gone, which is after the commit.
        pool: memory to work in, which other checkpoints share.

    Raises:
        InvalidArgument, TargetNotFound, TargetNotCheckpointable, TargetBusy, BundleInvalid,
        MissingTool, AlreadyExists, StoreFailed: before anything is touched.
        DumpFailed, TargetLost, StoreFailed: during the dump or while storing.
    """
    phases = Phases()
    with contextlib.ExitStack() as cleanup:
        with phases.measure("prepare"):
            await asyncio.to_thread(thaw_abandoned, state_dir)
            ready = await prepare(request, tools, state_dir, cleanup)
            surroundings = Surroundings(tools, await host_facts(tools), on_captured, pool)
            job = Job(request, ready, surroundings, phases)
            cleanup.callback(job.pipeline.end)
        async with watched(observer, job.progress):
            manifest = await _capture_and_commit(job)
        return _result(job, manifest)


async def _capture_and_commit(job: Job) -> Manifest:
    """Dump and store; on any failure everything is as before and nothing is left in the store."""
    committed: Manifest | None = None

    async def before_thaw(frozen_seconds: float, fallback_reason: str | None) -> None:
        nonlocal committed
        if job.request.stop:
            committed = await commit(job, Taken(frozen_seconds, fallback_reason))

    subjects = [member.subject for member in job.members]
    job.pipeline.start(sum(process.resident_bytes(subject.pid) for subject in subjects))
    try:
        taken = await _capture(job, before_thaw)
        job.tell_captured(taken.frozen_seconds)
        if committed is None:
            committed = await commit(job, taken)
    except BaseException as error:
        # Only those that were to be stopped and are stopped need their checkpoint now.
        if committed is None or all(subject.status != "stopped" for subject in subjects):
            await to_the_end(_abandon(job))
        if isinstance(error, ProtocolError | Closed):
            reason = str(error) or "it was given up"
            raise DumpFailed(str(job.request), reason) from error
        raise
    return committed.model_copy(update={"frozen_seconds": taken.frozen_seconds})


async def _capture(job: Job, before_thaw: BeforeThaw) -> Taken:
    """Take everything; when this returns, all run again, unless they were to be stopped."""
    if not job.request.is_plain:
        return await Moment(job, before_thaw).run()
    [member] = job.members
    with thawed_afterwards(member.subject.freezer):
        return await dump_member(member, before_thaw, stop=job.request.stop)


async def _abandon(job: Job) -> None:
    """Undo what is left to undo when runc and CRIU have ended, in whatever way."""
    await asyncio.to_thread(_discard, job)
    for member in job.members:
        subject = member.subject
        if isinstance(subject.target, RuncTarget) and subject.status != "stopped":
            await network.unlock(subject.pid)


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
        containers=[member.name for member in manifest.members],
    )
