"""The end of a checkpoint: streams durable, then the manifest; only now does it exist."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import agent
from agent.checkpoint.job import STATS, Job
from agent.manifest import MANIFEST, Manifest, Member, to_bytes
from agent.store import Store
from agent.targets import RuncTarget


async def commit(job: Job, frozen_seconds: float, fallback_reason: str | None) -> Manifest:
    """Store the rest of the images and write the manifest.

    Raises:
        AgentError: why it could not be stored; then there is no manifest.
    """
    with job.phases.measure("store"):
        job.phase = "store"
        await asyncio.to_thread(_add_sidecars, job)
        images = job.images.complete()
        streams, chunks = await asyncio.to_thread(job.pipeline.finish)
    subject, target = job.subject, job.subject.target
    with job.phases.measure("commit"):
        job.phase = "commit"
        member = Member(
            kind="runc" if isinstance(target, RuncTarget) else "process",
            target=target.container if isinstance(target, RuncTarget) else str(target.pid),
            pid=subject.pid,
            bundle=str(subject.bundle) if subject.bundle else None,
            runc_root=subject.runc_root,
            terminal=subject.terminal,
            options=job.request.options,
            images=images,
        )
        manifest = Manifest(
            checkpoint_id=job.checkpoint_id,
            name=job.request.name,
            created_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
            agent_version=agent.__version__,
            host=job.host,
            codec=str(job.request.compression),
            streamed=fallback_reason is None,
            fallback_reason=fallback_reason,
            frozen_seconds=round(frozen_seconds, 6),
            phases=job.phases.summary(),
            members=[member],
            streams=streams,
            chunks=chunks,
        )
        await _put(job.request.store, f"{job.checkpoint_id}/{MANIFEST}", to_bytes(manifest))
    return manifest


async def _put(store: Store, path: str, data: bytes) -> None:
    """Store an object. Cancelled or not, nobody writes it any more when this returns."""
    work = asyncio.ensure_future(asyncio.to_thread(store.put, path, data))
    try:
        await asyncio.shield(work)
    finally:
        await asyncio.wait([work])


def _add_sidecars(job: Job) -> None:
    """What belongs to the checkpoint but was not among CRIU's images."""
    descriptors = job.operation.images / "descriptors.json"
    if descriptors.exists():
        job.images.add(descriptors.name, "runc", descriptors.read_bytes())
    if job.subject.config is not None:
        job.images.add("config.json", "bundle", job.subject.config)
    stats = job.operation.work / STATS
    if stats.exists():
        job.images.add(STATS, "stats", stats.read_bytes())
