"""Images of one member on their way to CRIU: served to it, or as files where it cannot stream.

Who runs runc or CRIU is another's business: the agent itself, or what stands in for runc below a
container engine.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType

from agent.chunks import checkpoint_path
from agent.errors import CheckpointCorrupt, RestoreFailed, StoreFailed
from agent.export import write_images
from agent.host.shield import to_the_end
from agent.manifest import Manifest, Member
from agent.operation.control import Control
from agent.operation.workplace import Workplace
from agent.report import Phases
from agent.serve.prefetch import Prefetch
from agent.serve.server import ImageServer
from agent.store import Store

# Runs runc or CRIU once, in the workplace that is served; the pid of the first process. Raises
# RestoreFailed. Called again when it could not stream.
Attempt = Callable[[], Awaitable[int]]


class Serving:
    """Serves the restore of one member.

    Attributes:
        fallback_reason: why CRIU could not stream.
        failed: set when an image cannot be read; whoever runs CRIU then calls :meth:`hang_up`.
    """

    def __init__(
        self,
        store: Store,
        manifest: Manifest,
        member: Member,
        place: Workplace,
        phases: Phases,
        *,
        replaced: Mapping[str, bytes] = MappingProxyType({}),
    ) -> None:
        """``replaced`` is what CRIU is given instead of what is stored, by images' names."""
        self.fallback_reason: str | None = None
        self.failed = asyncio.Event()
        self._store, self._manifest, self._member = store, manifest, member
        self._place, self._phases, self._replaced = place, phases, replaced
        self._prefetch = Prefetch(store, manifest, member.images)
        self._loop = asyncio.get_running_loop()
        self._server = ImageServer(
            place.images, member, self._prefetch, replaced=replaced, failed=self._notice_failure
        )
        self._control = Control(place.images, on_root=place.note_root)

    @property
    def bytes_served(self) -> int:
        """Bytes of images that CRIU has been given."""
        return self._server.bytes_served

    def hang_up(self) -> None:
        """Make CRIU fail."""
        self._server.hang_up()

    async def run(self, attempt: Attempt) -> int:
        """Serve ``attempt``; what it returns.

        Raises:
            RestoreFailed: it could not. What it has left is its own to remove.
            CheckpointCorrupt, StoreFailed: why an image could not be served.
        """
        if self._member.terminal:
            # What runc gives CRIU to find the terminal's other end goes only over RPC.
            self.fallback_reason = "it has a terminal"
            return await self._plain(attempt)
        with contextlib.suppress(_CannotStream):
            return await self._streamed(attempt)
        self.fallback_reason = self._control.untranslatable
        return await self._plain(attempt)

    async def _streamed(self, attempt: Attempt) -> int:
        started = time.monotonic()
        self._prefetch.start()
        try:
            await asyncio.to_thread(self._write_descriptors)
            self._server.start()
            async with self._control:
                pid = await attempt()
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

    async def _plain(self, attempt: Attempt) -> int:
        """Unpack the images, and let runc or CRIU read them as they always do."""
        images = self._place.images
        # Sockets and descriptors.json of the attempt to stream.
        for left in images.iterdir():
            left.unlink()
        with self._phases.measure("unpack"):
            await asyncio.to_thread(self._write_images)
        with self._phases.measure("restore"):
            return await attempt()

    def _write_images(self) -> None:
        images = self._place.images
        write_images(self._store, self._manifest, self._member, images)
        for name, content in self._replaced.items():
            self._write(name, content)

    def _write(self, name: str, content: bytes) -> None:
        path = self._place.images / name
        try:
            path.write_bytes(content)
        except OSError as error:
            raise StoreFailed("write", str(path), error.strerror or str(error)) from error

    def _notice_failure(self) -> None:
        """Called by the thread that failed."""
        self._loop.call_soon_threadsafe(self.failed.set)

    def _write_descriptors(self) -> None:
        """runc reads this one itself: what the container's standard streams were."""
        image = self._member.image("descriptors.json")
        if image is not None:
            try:
                content = self._prefetch.whole(image)
            except ValueError as error:
                path = checkpoint_path(self._store, self._manifest.checkpoint_id)
                raise CheckpointCorrupt(path, f"{image.name}: {error}") from error
            self._write(image.name, content)

    def _account(self, started: float) -> None:
        """Phases from the moments that hooks came; a phase ends where the next begins."""
        hooks, ended = self._control.hooks, time.monotonic()
        begun = hooks.get("pre-stream", ended)
        for phase, seconds in {"start": begun - started, "restore": ended - begun}.items():
            self._phases.add(phase, seconds)


class _CannotStream(Exception):
    """runc asked CRIU for something that has no twin on the command line."""
