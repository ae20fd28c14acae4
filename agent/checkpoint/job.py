"""One checkpoint under way: what all its members share, and what each of them has for itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from agent.capture.buffers import SharedPool
from agent.capture.images import ImageSet
from agent.capture.pipeline import Pipeline
from agent.checkpoint.limit import FrozenLimit
from agent.checkpoint.prepare import Prepared
from agent.checkpoint.request import CheckpointRequest
from agent.checkpoint.subject import Subject
from agent.config import Tools
from agent.gpu import Suspension
from agent.host.criu import DumpStats, read_dump_stats
from agent.host.cuda import Cuda
from agent.manifest import Host, Manifest, Volume
from agent.operation.workplace import Workplace
from agent.report import Captured, OnCaptured, Phases, Update
from agent.targets import Kind, RuncTarget
from agent.targets import Volume as SharedDirectory

STATS = "stats-dump"

# Called while everything is still frozen and copied out, with the seconds frozen so far and why
# CRIU could not stream, if it could not.
BeforeThaw = Callable[[float, str | None], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Taken:
    """How long the members did not run, and why CRIU could not stream, if it could not."""

    frozen_seconds: float
    fallback_reason: str | None = None


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a checkpoint finds: programs, the machine, somebody who waits, memory lent to it."""

    tools: Tools
    host: Host
    state_dir: Path
    on_captured: OnCaptured
    pool: SharedPool | None
    cuda: Cuda


class Job:
    """Everything the steps of one checkpoint share."""

    def __init__(
        self,
        request: CheckpointRequest,
        prepared: Prepared,
        surroundings: Surroundings,
        phases: Phases,
    ) -> None:
        self.request = request
        self.operation, self.checkpoint_id = prepared.operation, prepared.checkpoint_id
        self.tools, self.host = surroundings.tools, surroundings.host
        self.state_dir = surroundings.state_dir
        self.gpus = prepared.gpus
        processes = [each for subject in prepared.subjects for each in subject.gpu_processes]
        self.suspension = Suspension(surroundings.cuda, processes, phases)
        self.phases = phases
        self.phase = "start"
        self.failed = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._on_captured = surroundings.on_captured
        self.pipeline = Pipeline(
            request.store,
            prepared.checkpoint_id,
            streams=request.streams,
            compression=request.compression,
            on_failure=self._notice_failure,
            shared=surroundings.pool,
        )
        self.limit = FrozenLimit(self.pipeline, str(request), request.frozen_limit)
        # A commit that members were frozen for; given up, it may still wait for the store.
        self.committing: asyncio.Task[Manifest] | None = None
        labels = [member.label for member in request.members]
        self.members = [
            Member(self, name, subject, place)
            for name, subject, place in zip(labels, prepared.subjects, prepared.places, strict=True)
        ]
        # What is taken of the volumes, when it is.
        self.volumes: list[Volume] = []

    @property
    def shared_directories(self) -> tuple[SharedDirectory, ...]:
        """The volumes to be taken: with root filesystems alone they are none of its business."""
        return () if self.request.kind is Kind.ROOTFS_ONLY else self.request.volumes

    def _notice_failure(self) -> None:
        """Called by the thread that failed."""
        self._loop.call_soon_threadsafe(self.failed.set)

    def progress(self) -> Update:
        """How far it is."""
        return Update(self.phase, self.pipeline.bytes_raw, self.pipeline.bytes_stored)

    def tell_captured(self, frozen_seconds: float) -> None:
        """Everything runs again, and nothing more is needed of it."""
        self._on_captured(
            Captured(
                checkpoint_id=self.checkpoint_id,
                frozen_seconds=round(frozen_seconds, 6),
                cuda_seconds=round(self.suspension.seconds, 6),
                bytes_raw=self.pipeline.bytes_raw,
                phases=self.phases.summary(),
            )
        )


class Member:
    """One container or process tree of a job, with directories, sockets and images of its own."""

    def __init__(self, job: Job, name: str, subject: Subject, place: Workplace) -> None:
        self.job, self.name, self.subject, self.place = job, name, subject, place
        self.images = ImageSet(job.pipeline)
        # Of several that are dumped side by side, none has the phases of the whole.
        self.phases = job.phases if job.request.is_plain else Phases()
        self._finished = False

    def __str__(self) -> str:
        target = self.subject.target
        if not isinstance(target, RuncTarget) or target.container == self.name:
            return str(target)
        return f"container {self.name!r} ({target.container})"

    def enter(self, phase: str) -> None:
        """Tell which phase this is, where it is that of the whole checkpoint."""
        if self.job.request.is_plain:
            self.job.phase = phase

    def stats(self) -> DumpStats | None:
        """CRIU's figures of the dump; None before its end. It writes them beside its logs."""
        try:
            return read_dump_stats((self.place.work / STATS).read_bytes())
        except (OSError, ValueError):
            return None

    def finish(self) -> None:
        """Take what belongs to the member and was not among CRIU's images, once. Blocks."""
        if self._finished:
            return
        self._finished = True
        descriptors = self.place.images / "descriptors.json"
        if descriptors.exists():
            self.images.add(descriptors.name, "runc", descriptors.read_bytes())
        if self.subject.config is not None:
            self.images.add("config.json", "bundle", self.subject.config)
        stats = self.place.work / STATS
        if stats.exists():
            self.images.add(STATS, "stats", stats.read_bytes())
        self.images.flush()
