"""One restore under way: images served to CRIU, or written to files where it cannot stream."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass
from pathlib import Path

from agent.config import Tools
from agent.errors import RestoreFailed
from agent.export import write_images
from agent.host import criu, process, runc
from agent.manifest import Manifest, Member
from agent.operation.attempt import attempt, complaint
from agent.operation.control import Control
from agent.operation.journal import Operation
from agent.report import Phases
from agent.serve.prefetch import Prefetch
from agent.serve.server import ImageServer
from agent.store import Store
from agent.targets import RuncTarget


@dataclass(frozen=True, slots=True)
class RestoreRequest:
    """Which checkpoint, and what its container is to be called and stand on."""

    store: Store
    checkpoint_id: str
    container: str | None = None
    bundle: Path | None = None
    runc_root: Path | None = None


@dataclass(frozen=True, slots=True)
class RestoreTarget:
    """What a member becomes: a container under runc, or a process tree with the pids it had."""

    member: Member
    runc: RuncTarget | None = None
    bundle: Path | None = None

    @property
    def name(self) -> str:
        """The container's id, or the pid."""
        return self.runc.container if self.runc else self.member.target

    @property
    def lock_name(self) -> str:
        """The same as for a checkpoint of it."""
        return f"{self.runc} under {self.runc.root}" if self.runc else f"process {self.name}"


class Restoration:
    """Runs one restore."""

    def __init__(
        self,
        request: RestoreRequest,
        manifest: Manifest,
        target: RestoreTarget,
        operation: Operation,
        *,
        tools: Tools,
        phases: Phases,
    ) -> None:
        self.fallback_reason: str | None = None
        self._manifest, self._target = manifest, target
        self._operation, self._tools, self._phases = operation, tools, phases
        self._store = request.store
        self._prefetch = Prefetch(request.store, manifest, target.member.images)
        self._failed = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._server = ImageServer(
            operation.images, target.member, self._prefetch, failed=self._notice_failure
        )
        self._control = Control(operation.images, on_root=operation.note_root)

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
            await asyncio.shield(self._undo())
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
            await asyncio.shield(asyncio.to_thread(self._server.close))
        self._account(started)
        return pid

    async def _plain(self) -> int:
        """Unpack the images, and let runc or CRIU read them as they always do."""
        images = self._operation.images
        # Sockets and descriptors.json of the attempt to stream.
        for left in images.iterdir():
            left.unlink()
        with self._phases.measure("unpack"):
            await asyncio.to_thread(
                write_images, self._store, self._manifest, self._target.member, images
            )
        with self._phases.measure("restore"):
            return await self._attempt()

    async def _attempt(self) -> int:
        status = await attempt(
            self._command(), self._operation, failed=self._failed, hang_up=self._server.hang_up
        )
        if status:
            reason, log = complaint(self._operation, "restore.log", status)
            raise RestoreFailed(self._target.name, reason, log)
        return int(self._pid_file.read_text())

    def _notice_failure(self) -> None:
        """Called by the thread that failed."""
        self._loop.call_soon_threadsafe(self._failed.set)

    def _command(self) -> list[str]:
        operation, target, options = self._operation, self._target, self._target.member.options
        if target.runc is None:
            arguments = criu.restore_arguments(
                options, work_dir=operation.work, pid_file=self._pid_file
            )
            return [str(operation.launcher / "criu"), "direct", str(operation.images), *arguments]
        return [
            *runc.command(self._tools, target.runc.root, log=operation.work / "runc.log"),
            "restore",
            *("--bundle", str(target.bundle), "--pid-file", str(self._pid_file)),
            *("--image-path", str(operation.images), "--work-path", str(operation.work)),
            *runc.restore_arguments(options),
            target.runc.container,
        ]

    @property
    def _pid_file(self) -> Path:
        return self._operation.work / "pid"

    def _write_descriptors(self) -> None:
        """runc reads this one itself: what the container's standard streams were."""
        image = self._target.member.image("descriptors.json")
        if image is not None:
            content = self._prefetch.whole(image)
            (self._operation.images / image.name).write_bytes(content)

    async def _undo(self) -> None:
        """What may be left when runc or CRIU was killed, or succeeded after all."""
        target = self._target.runc
        if target is not None and runc.exists(target):
            await runc.delete(self._tools, target)
        # runc may have forgotten the container already, or not yet know the tasks CRIU has made.
        if (root := self._operation.root_alive()) is not None:
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
