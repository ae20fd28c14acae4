"""The end of a checkpoint: streams durable, then the manifest; only now does it exist."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime
from pathlib import Path

import agent
from agent.capture.buffers import Closed
from agent.checkpoint import job as jobs
from agent.checkpoint.copying import copy_in_thread
from agent.errors import StoreFailed
from agent.host.own_thread import in_own_thread
from agent.host.shield import to_the_end
from agent.manifest import MANIFEST, Chunk, Manifest, Member, Stream, to_bytes
from agent.operation import journal
from agent.store import Store
from agent.targets import RuncTarget


async def commit(job: jobs.Job, taken: jobs.Taken) -> Manifest:
    """Store the rest of the images and write the manifest.

    Raises:
        AgentError: why it could not be stored; then there is no manifest.
    """
    with job.phases.measure("store"):
        job.phase = "store"
        for member in job.members:
            await copy_in_thread(job.pipeline, member.finish)
        streams, chunks = await in_own_thread(job.pipeline.finish)
    with job.phases.measure("commit"):
        job.phase = "commit"
        manifest = _manifest(job, taken, streams, chunks)
        data = await in_own_thread(lambda: to_bytes(manifest))
        await _put(job.request.store, f"{job.checkpoint_id}/{MANIFEST}", data)
    return manifest


async def commit_frozen(job: jobs.Job, taken: jobs.Taken) -> Manifest:
    """The same while members are frozen for it; when the pipeline fails, at once.

    Who thaws them does not wait for a store that hangs. The rest of the commit, which may come to
    its end yet, is left in ``job.committing``.
    """
    job.committing = committing = asyncio.create_task(commit(job, taken))
    failing = asyncio.create_task(job.failed.wait())
    try:
        await asyncio.wait({committing, failing}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        failing.cancel()
        committing.cancel()
    if committing.done():
        return committing.result()
    job.pipeline.raise_failure()
    raise Closed


async def end_of_commit(job: jobs.Job) -> None:
    """Wait for a commit that was given up: what it writes until then has to be withdrawn."""
    if job.committing is not None:
        await asyncio.gather(job.committing, return_exceptions=True)


def _manifest(
    job: jobs.Job, taken: jobs.Taken, streams: list[Stream], chunks: list[Chunk]
) -> Manifest:
    request = job.request
    return Manifest(
        checkpoint_id=job.checkpoint_id,
        name=request.name,
        kind=request.kind.value,
        pod=request.pod,
        created_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
        agent_version=agent.__version__,
        host=job.host,
        codec=str(request.compression),
        streamed=taken.fallback_reason is None,
        fallback_reason=taken.fallback_reason,
        frozen_seconds=round(taken.frozen_seconds, 6),
        phases=job.phases.summary(),
        members=[_member(member) for member in job.members],
        volumes=job.volumes,
        streams=streams,
        chunks=chunks,
        reason=request.reason,
        gpus=job.gpus,
    )


def _member(member: jobs.Member) -> Member:
    subject, target = member.subject, member.subject.target
    return Member(
        name=member.name,
        kind="runc" if isinstance(target, RuncTarget) else "process",
        target=target.container if isinstance(target, RuncTarget) else str(target.pid),
        pid=subject.pid,
        bundle=str(subject.bundle) if subject.bundle else None,
        runc_root=subject.runc_root,
        terminal=subject.terminal,
        options=member.job.request.options,
        images=member.images.complete(),
    )


async def _put(store: Store, path: str, data: bytes) -> None:
    """Store an object. Cancelled or not, nobody writes it any more when this returns."""
    await to_the_end(in_own_thread(lambda: store.put(path, data)))


def withdraw(store: Store, checkpoint_id: str, state_dir: Path) -> None:
    """Remove what a checkpoint that has failed left in the store. Blocks.

    The manifest first: it is there when only the answer was lost, or the cancellation came too late
    for it, and must not name streams that are gone. What the store does not take back now is
    written down, for the next recovery: without anybody to thaw, as all run again by then.
    """
    try:
        store.delete(f"{checkpoint_id}/{MANIFEST}")
        store.discard(checkpoint_id)
    except StoreFailed:
        record = journal.Record(
            kind="delete",
            operation=journal.new_id(),
            checkpoint_id=checkpoint_id,
            store=store.url,
            target=f"what is left of checkpoint {checkpoint_id}",
        )
        # With neither a store nor a state directory nothing is left to do.
        with contextlib.suppress(StoreFailed):
            journal.begin(state_dir, record).release()
