"""One restore under way: images served to CRIU, or written to files where it cannot stream."""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path

from agent.config import Tools
from agent.errors import RestoreFailed
from agent.export import write_images
from agent.host import criu, process, runc
from agent.host.shield import to_the_end
from agent.manifest import Manifest
from agent.operation.attempt import attempt, complaint
from agent.operation.control import Control
from agent.operation.journal import Workplace
from agent.report import Phases
from agent.restore.request import RestoreTarget
from agent.serve.prefetch import Prefetch
from agent.serve.server import ImageServer
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
    ) -> None:
        self.fallback_reason: str | None = None
        self.target = target
        self._store, self._manifest = store, manifest
        self._place, self._tools, self._phases = place, tools, phases
        self._prefetch = Prefetch(store, manifest, target.member.images)
        self._failed = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._server = ImageServer(
            place.images, target.member, self._prefetch, failed=self._notice_failure
        )
        self._control = Control(place.images, on_root=place.note_root)

    @property
    def bytes_served(self) -> int:
        """Bytes of images that CRIU has been given."""
        return self._server.bytes_served

    async def run(self) -> int:
        """Restore; the pid of the first process, which runs now.

        Raises:
            RestoreFailed, CheckpointCorrupt, StoreFailed: and nothing is left of it.
        """
        try:
            with contextlib.suppress(_CannotStream):
                return await self._streamed()
            self.fallback_reason = self._control.untranslatable
            return await self._plain()
        except BaseException:
            await to_the_end(self.undo())
            raise

    async def _streamed(self) -> int:
        started = time.monotonic()
        self._prefetch.start()
        try:
            await asyncio.to_thread(self._write_descriptors)
            self._server.start()
            async with self._control:
                pid = await self._attempt()
            self._server.check()
        except RestoreFailed:
            if self._control.untranslatable:
                raise _CannotStream from None
            # When reading failed first, CRIU's failure is only its echo.
            self._server.check()
            raise
        finally:
            await to_the_end(asyncio.to_thread(self._server.close))
        self._account(started)
        return pid

    async def _plain(self) -> int:
        """Unpack the images, and let runc or CRIU read them as they always do."""
        images = self._place.images
        # Sockets and descriptors.json of the attempt to stream.
        for left in images.iterdir():
            left.unlink()
        with self._phases.measure("unpack"):
            await asyncio.to_thread(
                write_images, self._store, self._manifest, self.target.member, images
            )
        with self._phases.measure("restore"):
            return await self._attempt()

    async def _attempt(self) -> int:
        status = await attempt(
            self._command(), self._place, failed=self._failed, hang_up=self._server.hang_up
        )
        if status:
            reason, log = complaint(self._place, "restore.log", status)
            raise RestoreFailed(self.target.name, reason, log)
        return int(self._pid_file.read_text())

    def _notice_failure(self) -> None:
        """Called by the thread that failed."""
        self._loop.call_soon_threadsafe(self._failed.set)

    def _command(self) -> list[str]:
        place, target, options = self._place, self.target, self.target.member.options
        if target.runc is None:
            arguments = criu.restore_arguments(
                options, work_dir=place.work, pid_file=self._pid_file
            )
            return [str(place.launcher / "criu"), "direct", str(place.images), *arguments]
        return [
            *runc.command(self._tools, target.runc.root, log=place.work / "runc.log"),
            "restore",
            *("--bundle", str(target.bundle), "--pid-file", str(self._pid_file)),
            *("--image-path", str(place.images), "--work-path", str(place.work)),
            *runc.restore_arguments(options),
            target.runc.container,
        ]

    @property
    def _pid_file(self) -> Path:
        return self._place.work / "pid"

    def _write_descriptors(self) -> None:
        """runc reads this one itself: what the container's standard streams were."""
        image = self.target.member.image("descriptors.json")
        if image is not None:
            content = self._prefetch.whole(image)
            (self._place.images / image.name).write_bytes(content)

    async def undo(self) -> None:
        """Remove what may be left when runc or CRIU was killed, or has succeeded after all."""
        target = self.target.runc
        if target is not None and runc.exists(target):
            await runc.delete(self._tools, target)
        # runc may have forgotten the container already, or not yet know the tasks CRIU has made.
        if (root := self._place.root_alive()) is not None:
            process.kill_tree(root)
        elif target is None and self._pid_file.exists():
            process.kill_tree(int(self._pid_file.read_text()))

    def _account(self, started: float) -> None:
        """Phases from the moments that hooks came; a phase ends where the next begins."""
        hooks, ended = self._control.hooks, time.monotonic()
        begun = hooks.get("pre-stream", ended)
        for phase, seconds in {"start": begun - started, "restore": ended - begun}.items():
            self._phases.add(phase, seconds)


class _CannotStream(Exception):
    """runc asked CRIU for something that has no twin on the command line."""
