"""A directory tree on its way into the pipeline, as a tar that nobody has to hold."""

from __future__ import annotations

import asyncio
import contextlib
import os
from dataclasses import dataclass
from fcntl import F_SETPIPE_SZ, fcntl
from pathlib import Path

from agent.capture.buffers import Closed
from agent.capture.images import SMALL_IMAGE, ImageSet
from agent.capture.pipeline import Pipeline
from agent.errors import DumpFailed
from agent.host import tar
from agent.host.own_thread import in_own_thread
from agent.host.run import describe_status, spawn
from agent.host.shield import to_the_end
from agent.manifest import ImageKind

# The most that root's pipes hold by default (/proc/sys/fs/pipe-max-size).
_PIPE_SIZE = 1 << 20


@dataclass(frozen=True, slots=True)
class Tree:
    """A directory to be taken, as an image of that name; ``owner`` is whose it is, for messages."""

    directory: Path
    image: str
    kind: ImageKind
    owner: str

    async def take(self, images: ImageSet, pipeline: Pipeline, log: Path) -> None:
        """Read all of it into ``images``. It has to stand still meanwhile.

        Args:
            log: where tar's complaints go.

        Raises:
            DumpFailed: something could not be read, or changed while it was.
            AgentError: why the pipeline had failed.
        """
        copy = _Copy(images, pipeline)
        try:
            with log.open("wb") as said:
                status = await copy.run(self, said.fileno())
        except Closed:
            # When storage failed first, that it takes nothing more is only its echo.
            pipeline.raise_failure()
            raise
        pipeline.raise_failure()
        if status:
            reason = tar.complaint(log) or f"tar: {describe_status(status)}"
            raise DumpFailed(self.owner, reason)


class _Copy:
    """One tar at work, and the thread that reads what it writes."""

    def __init__(self, images: ImageSet, pipeline: Pipeline) -> None:
        self._images, self._pipeline = images, pipeline
        self._reading: asyncio.Future[None] | None = None

    async def run(self, tree: Tree, said: int) -> int:
        """Its exit status. When this returns, tar and the thread have ended."""
        reader, writer = os.pipe2(os.O_CLOEXEC)
        with contextlib.suppress(PermissionError):  # then it stays smaller, and slower
            fcntl(reader, F_SETPIPE_SZ, _PIPE_SIZE)
        try:
            return await self._tar(tree, reader, writer, said)
        except BaseException:
            # Wakes the thread where it waits for memory.
            self._pipeline.fail(Closed())
            raise
        finally:
            if self._reading is not None:
                # Not only told to end: nobody may write into a buffer that somebody else gets.
                await to_the_end(asyncio.wait([self._reading]))
            os.close(reader)

    async def _tar(self, tree: Tree, reader: int, writer: int, said: int) -> int:
        try:
            tarring = spawn(tar.create(tree.directory), stdout=writer, stderr=said)
            async with contextlib.AsyncExitStack() as stack:
                process = await stack.enter_async_context(tarring)
                os.close(writer)
                writer = -1
                work = in_own_thread(lambda: self._read(reader, tree))
                self._reading = asyncio.ensure_future(work)
                # Given up, the block ends tar, and so the pipe, and so the thread.
                await asyncio.shield(self._reading)
                return await process.wait()
        finally:
            if writer >= 0:
                os.close(writer)

    def _read(self, reader: int, tree: Tree) -> None:
        scratch = memoryview(bytearray(SMALL_IMAGE))
        image = self._images.incoming(tree.image, tree.kind)
        while self._pipeline.failure is None:
            if not image.read(reader, scratch):
                self._images.finished(image)
                return
        raise Closed
