"""One restore under way: runc or CRIU, run by the agent itself, while images are served to it."""

from __future__ import annotations

import asyncio

from agent.config import Tools
from agent.errors import (
    AgentError,
    AlreadyExists,
    NetworkStuck,
    RestoreFailed,
    RestoreNotUndone,
)
from agent.host import criu, network, process, runc
from agent.host.shield import to_the_end
from agent.manifest import Manifest
from agent.operation.attempt import attempt, complaint
from agent.operation.remains import is_left_by
from agent.operation.workplace import Workplace
from agent.report import Phases
from agent.restore.driver_mounts import make_points, renew_devices
from agent.restore.gpus import GpuPlan
from agent.restore.request import RestoreTarget
from agent.restore.serving import Serving
from agent.restore.target import check_vacant
from agent.store import Store


class Restoration:
    """Runs the restore of one member."""

    def __init__(
        self,
        store: Store,
        manifest: Manifest,
        target: RestoreTarget,
        place: Workplace,
        *,
        tools: Tools,
        phases: Phases,
        gpus: GpuPlan,
    ) -> None:
        self.target = target
        self._place, self._tools, self._gpus, self._phases = place, tools, gpus, phases
        self._serving = Serving(store, manifest, target.member, place, phases)

    @property
    def bytes_served(self) -> int:
        """Bytes of images that CRIU has been given."""
        return self._serving.bytes_served

    @property
    def fallback_reason(self) -> str | None:
        """Why CRIU could not stream, None when it could."""
        return self._serving.fallback_reason

    async def run(self) -> int:
        """Restore; the pid of the first process, which runs now.

        Raises:
            RestoreFailed, CheckpointCorrupt, StoreFailed: and nothing is left of it.
            AlreadyExists: somebody has made another one of its name meanwhile.
            NetworkStuck: the same, but that the network it was to be in may be locked still.
            RestoreNotUndone: something may be left of it.
        """
        waits = self.target.member.name in self._gpus.members
        try:
            if waits:
                # For the recovery: until then it runs, and is of no use.
                self._place.note_waiting(True)
            pid = await self._restore()
            if waits:
                with self._phases.measure("cuda_restore"):
                    await self._gpus.bring_back(self.target.member.name, pid)
                self._place.note_waiting(False)
            return pid
        except BaseException as error:
            try:
                await to_the_end(self.undo())
            except (AgentError, OSError) as left:
                raise not_undone(self.target.name, error, left) from error
            raise

    async def _restore(self) -> int:
        target = self.target
        if target.bundle is not None:
            await asyncio.to_thread(make_points, target.mounts, target.bundle, target.name)
        pid = await self._serving.run(self._attempt)
        if target.bundle is not None:
            await asyncio.to_thread(renew_devices, pid, target.bundle, target.name)
        return pid

    async def _attempt(self) -> int:
        serving = self._serving
        # Again: since it was looked for, gigabytes of layers may have been unpacked, other members
        # restored, and all images written to files.
        await asyncio.to_thread(check_vacant, self.target)
        self._place.note_begun(True)
        status = await attempt(
            self._command(), self._place, failed=serving.failed, hang_up=serving.hang_up
        )
        if status:
            self._refuse_what_is_taken()
            reason, log = complaint(self._place, "restore.log", status)
            raise RestoreFailed(self.target.name, reason, log)
        return int(self._place.pid_file.read_text())

    def _refuse_what_is_taken(self) -> None:
        """Raises AlreadyExists: somebody made one between the look and runc's own."""
        if runc.says_taken(self._place.work / "runc.log"):
            self._place.note_begun(False)
            raise AlreadyExists("container", self.target.name)

    def _command(self) -> list[str]:
        place, target, options = self._place, self.target, self.target.member.options
        if target.runc is None:
            arguments = criu.restore_arguments(
                options, work_dir=place.work, pid_file=self._place.pid_file
            )
            return [str(place.launcher / "criu"), "direct", str(place.images), *arguments]
        config = runc.read_config(target.bundle) if target.bundle is not None else {}
        return [
            *runc.command(self._tools, target.runc.root, log=place.work / "runc.log"),
            *runc.cgroup_arguments(config),
            "restore",
            *("--bundle", str(target.bundle), "--pid-file", str(self._place.pid_file)),
            *("--image-path", str(place.images), "--work-path", str(place.work)),
            *runc.restore_arguments(options),
            target.runc.container,
        ]

    async def undo(self) -> None:
        """Remove what may be left when runc or CRIU was killed, or has succeeded after all.

        Raises:
            AgentError, OSError: it could not be removed; a later recovery tries again.
        """
        try:
            await self._undo()
        except BaseException:
            self._place.keep()
            raise

    async def _undo(self) -> None:
        target = self.target.runc
        try:
            if target is not None and await is_left_by(self._place, target):
                await runc.delete(self._tools, target)
        finally:
            # runc may have forgotten the container already, or not yet know the tasks that CRIU has
            # made.
            if (root := self._place.root_alive()) is not None:
                process.kill_tree(root)
            elif target is None and self._place.pid_file.exists():
                process.kill_tree(int(self._place.pid_file.read_text()))
            if self.target.network is not None:
                await network.unlock(self.target.network, to_one=self.target.locked)


def not_undone(target: str, error: BaseException, left: AgentError | OSError) -> AgentError:
    """What to tell of a restore that failed, and then could not be undone, either."""
    if isinstance(left, NetworkStuck) and not isinstance(error, RestoreNotUndone):
        return left.following(error)
    return RestoreNotUndone.after(error, left, target)
