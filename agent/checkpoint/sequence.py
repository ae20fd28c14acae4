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
from dataclasses import replace
from functools import partial
from pathlib import Path

from agent.capture.buffers import Closed, SharedPool
from agent.capture.streamer import ProtocolError
from agent.checkpoint.commit import commit, commit_frozen, end_of_commit, withdraw
from agent.checkpoint.job import BeforeThaw, Job, Surroundings, Taken
from agent.checkpoint.member import dump_member
from agent.checkpoint.moment import Moment
from agent.checkpoint.prepare import prepare
from agent.checkpoint.request import CheckpointRequest
from agent.chunks import checkpoint_path
from agent.config import Tools
from agent.errors import DumpFailed, GpuStuck, NetworkStuck
from agent.host import connections, criu, network, process
from agent.host.cuda import Cuda, CudaFailed
from agent.host.facts import host_facts
from agent.host.own_thread import in_own_thread
from agent.host.shield import to_the_end
from agent.logs import get_logger
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

__all__ = ["CheckpointRequest", "checkpoint"]

log = get_logger(__name__)


async def checkpoint(
    request: CheckpointRequest,
    *,
    tools: Tools,
    state_dir: Path,
    observer: Observer = ignore,
    on_captured: OnCaptured = ignore_captured,
    pool: SharedPool | None = None,
    cuda: Cuda | None = None,
) -> CheckpointResult:
    """Checkpoint containers or a process tree; when this returns, it is durable and committed.

    On any error, and when cancelled, all members run as before and nothing is stored.

    Args:
        on_captured: called once, when all run again and nothing more is needed of them; with
            ``stop``, when they are gone, which is after the commit.
        pool: memory to work in, which other checkpoints share.
        cuda: the driver, as others use it already; else it is asked anew.

    Raises:
        InvalidArgument, TargetNotFound, TargetNotCheckpointable, TargetBusy, BundleInvalid,
        MissingTool, AlreadyExists, StoreFailed: before anything is touched.
        DumpFailed, FrozenTooLong, TargetLost, StoreFailed: during the dump or while storing.
        GpuStuck: a process is not back on its GPU; the checkpoint may exist.
        NetworkStuck: of a checkpoint that failed, and whose members may be cut off.
    """
    if cuda is None:
        async with contextlib.aclosing(Cuda()) as cuda:
            return await checkpoint(
                request,
                tools=tools,
                state_dir=state_dir,
                observer=observer,
                on_captured=on_captured,
                pool=pool,
                cuda=cuda,
            )
    phases = Phases()
    with contextlib.ExitStack() as cleanup:
        with phases.measure("prepare"):
            await asyncio.to_thread(thaw_abandoned, state_dir)
            ready = await prepare(request, tools, cuda, state_dir, cleanup)
            host = await host_facts(tools)
            surroundings = Surroundings(tools, host, state_dir, on_captured, pool, cuda)
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
        # Here for certain: what CRIU has dumped is frozen, and its pid nobody else's.
        for subject in subjects:
            subject.refuse_another()
        if job.request.stop:
            seconds = frozen_seconds + job.suspension.seconds
            committed = await commit_frozen(job, Taken(seconds, fallback_reason))
        # From here on they run, or are killed.
        job.limit.end()

    subjects = [member.subject for member in job.members]
    try:
        job.pipeline.start(sum(process.resident_bytes(subject.pid) for subject in subjects))
        taken = await _capture(job, before_thaw)
        if not job.request.stop and await in_own_thread(lambda: _may_be_locked(job)):
            await to_the_end(_open_networks(job))
        if job.suspension.problem is None:
            job.tell_captured(taken.frozen_seconds)
        if committed is None:
            committed = await commit(job, taken)
        elif not job.request.options.tcp_established:
            # CRIU has left it locked for a restore that takes connections up again.
            await to_the_end(_open_networks(job))
    except BaseException as error:
        # Only those that were to be stopped and are stopped need their checkpoint now.
        stuck = None
        if committed is None or all(subject.status != "stopped" for subject in subjects):
            stuck = await to_the_end(_abandon(job))
        _refuse_to_forget(job, None)
        if stuck is not None:
            raise stuck.following(error) from error
        if isinstance(error, ProtocolError | Closed | CudaFailed):
            reason = str(error) or "it was given up"
            raise DumpFailed(str(job.request), reason) from error
        raise
    _refuse_to_forget(job, committed)
    return committed.model_copy(update={"frozen_seconds": taken.frozen_seconds})


async def _capture(job: Job, before_thaw: BeforeThaw) -> Taken:
    """Take everything; when this returns, all run again, unless they were to be stopped."""
    async with job.suspension as suspension:
        taken = await _dump(job, before_thaw)
        suspension.stays = job.request.stop
    return replace(taken, frozen_seconds=taken.frozen_seconds + suspension.seconds)


async def _dump(job: Job, before_thaw: BeforeThaw) -> Taken:
    try:
        if not job.request.is_plain:
            return await Moment(job, before_thaw).run()
        [member] = job.members
        with thawed_afterwards(member.subject.freezer):
            return await dump_member(member, before_thaw, stop=job.request.stop)
    finally:
        job.limit.end()


def _refuse_to_forget(job: Job, committed: Manifest | None) -> None:
    """What is not back on its GPU stays in the journal, for whoever cleans up to try again.

    Raises:
        GpuStuck
    """
    problem = job.suspension.problem
    if problem is not None:
        job.operation.keep()
        store, name = job.request.store, job.checkpoint_id
        path = checkpoint_path(store, name) if committed is not None else None
        raise GpuStuck(str(job.request), str(problem), path)


async def _abandon(job: Job) -> NetworkStuck | None:
    """Undo what is left to undo when runc and CRIU have ended, in whatever way."""
    # First: a store may take its time, and nobody can reach the members.
    stuck = await _open_networks(job)
    await end_of_commit(job)
    await in_own_thread(lambda: _discard(job))
    return stuck


def _may_be_locked(job: Job) -> bool:
    """Whether something of a lock may have stayed, after a dump that says all is well.

    To look at the network itself takes two programs, 40 ms.
    """
    # Several CRIUs lock and open one namespace side by side. Once in 4,700 tests on a busy machine
    # something of that had stayed, and who is cut off is as good as frozen.
    if len(job.members) > 1:
        return True
    logs = [member.place.work / "dump.log" for member in job.members]
    return job.request.options.log_level == 0 or not all(map(criu.has_unlocked, logs))


async def _open_networks(job: Job) -> NetworkStuck | None:
    """Open all of them; the first that may be locked still.

    Then the operation stays in the journal, and whoever cleans up tries again for those that run.
    A checkpoint does not fail for it: CRIU has done its part.
    """
    stuck = None
    subjects = [member.subject for member in job.members]
    namespaces = dict.fromkeys(subject.network for subject in subjects)
    locks = [partial(network.unlock, each) for each in namespaces if each is not None]
    if job.request.options.tcp_established:
        alone = [subject for subject in subjects if subject.joined is None]
        locks += [partial(connections.unlock, each.pid, each.started) for each in alone]
    for unlock in locks:
        try:
            await unlock()
        except NetworkStuck as error:
            log.warning("a network may be closed", target=str(job.request), reason=str(error))
            job.operation.keep()
            stuck = stuck or error
    return stuck


def _discard(job: Job) -> None:
    """End the threads; remove what is in the store already, since no manifest will name it."""
    job.pipeline.abort()
    withdraw(job.request.store, job.checkpoint_id, job.state_dir)


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
        cuda_seconds=round(job.suspension.seconds, 6),
        gpus=manifest.gpus.used_models if manifest.gpus else [],
    )
