"""Several members of one moment: all stand still, everything is taken, all go on.

What CRIU does for one container, its cgroup does for several: they are frozen together before the
first byte is read and thawed together after the last one is copied out, so that they never know of
each other what one of them has not seen. The same holds for files: a writable layer or volume is
read while nobody who writes to it runs.
"""

from __future__ import annotations

import asyncio

from agent.capture.images import ImageSet
from agent.checkpoint.copying import copy_in_thread
from agent.checkpoint.job import BeforeThaw, Job, Member, Taken
from agent.checkpoint.member import dump_member
from agent.checkpoint.plain import kill
from agent.checkpoint.tree import Tree
from agent.errors import DumpFailed
from agent.manifest import ROOTFS_DIFF, VOLUME_TAR, Volume
from agent.operation.freeze import CannotFreeze, Freeze, frozen
from agent.targets import Kind
from agent.targets import Volume as SharedDirectory

# How much is taken side by side. Starting runc and CRIU takes 0.1 s of which most is waiting, so
# some are worth it even on two cores; more only share the memory that the images wait in.
SIDE_BY_SIDE = 4


class Moment:
    """Takes all of a job in one freeze."""

    def __init__(self, job: Job, before_thaw: BeforeThaw) -> None:
        self._job, self._before_thaw = job, before_thaw
        self._slots = asyncio.Semaphore(SIDE_BY_SIDE)
        self._reasons: dict[str, str] = {}
        self._volumes: dict[str, Volume] = {}

    async def run(self) -> Taken:
        """Freeze, take, thaw. All or nothing: on any error all run as before.

        Raises:
            DumpFailed, FrozenTooLong, TargetLost, StoreFailed: the first that was met.
        """
        job = self._job
        with job.phases.measure("start"):
            await asyncio.to_thread(job.pipeline.wait_prepared)
        job.phase = "freeze"
        freezers = [member.subject.freezer for member in job.members]
        try:
            async with frozen([freezer for freezer in freezers if freezer]) as freeze:
                job.limit.begin()
                job.phases.add("freeze", freeze.seconds)
                reason = await self._take(freeze)
                copied = freeze.seconds
        except CannotFreeze as error:
            [member, *_] = [one for one in job.members if one.subject.freezer == error.freezer]
            raise DumpFailed(str(member), f"it cannot be frozen: {error.reason}") from error
        if not job.request.stop:
            job.phases.add("thaw", freeze.seconds - copied)
        return Taken(freeze.seconds, reason)

    async def _take(self, freeze: Freeze) -> str | None:
        job = self._job
        job.phase = "dump"
        with job.phases.measure("dump"):
            await self._take_all()
            self._check_frozen()
        job.volumes = [self._volumes[volume.name] for volume in job.shared_directories]
        reasons = [f"{name}: {reason}" for name, reason in sorted(self._reasons.items())]
        reason = "; ".join(reasons) or None
        await self._before_thaw(freeze.seconds, reason)
        if job.request.stop:
            for member in job.members:
                await kill(member)
        return reason

    def _check_frozen(self) -> None:
        """Nobody else may have thawed them meanwhile: an owner who had paused them, for one.

        CRIU leaves a cgroup as it found it, so one that ran before its turn came runs now.
        """
        for member in self._job.members:
            freezer = member.subject.freezer
            if freezer is not None and not freezer.is_frozen():
                raise DumpFailed(str(member), "it was thawed by somebody else in the middle")

    async def _take_all(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for member in self._job.members:
                    group.create_task(self._take_member(member))
                for number, volume in enumerate(self._job.shared_directories):
                    group.create_task(self._take_volume(volume, number))
        except BaseExceptionGroup as failures:
            # The others were given up because of the first.
            raise failures.exceptions[0] from None

    async def _take_member(self, member: Member) -> None:
        kind, pipeline = self._job.request.kind, self._job.pipeline
        async with self._slots:
            if kind is not Kind.ROOTFS_ONLY:
                taken = await dump_member(member, _go_on, stop=False)
                if taken.fallback_reason is not None:
                    self._reasons[member.name] = taken.fallback_reason
            if member.subject.layer is not None:
                layer = Tree(member.subject.layer, ROOTFS_DIFF, "rootfs", str(member))
                await layer.take(member.images, pipeline, member.place.work / "tar.log")
            # Now, and not with the others at the end: each would keep a half-filled buffer.
            await copy_in_thread(pipeline, member.finish)

    async def _take_volume(self, volume: SharedDirectory, number: int) -> None:
        pipeline, images = self._job.pipeline, ImageSet(self._job.pipeline)
        async with self._slots:
            tree = Tree(volume.source, VOLUME_TAR, "volume", f"volume {volume.name!r}")
            await tree.take(images, pipeline, self._job.operation.work / f"volume-{number}.log")
            await copy_in_thread(pipeline, images.flush)
        [image] = images.complete()
        self._volumes[volume.name] = Volume(
            name=volume.name, medium="shm" if volume.medium == "shm" else "empty-dir", image=image
        )


async def _go_on(_frozen_seconds: float, _fallback_reason: str | None) -> None:
    """What a single member waits for: the others are still frozen, and so is it."""
