"""A directory tree on its way out of a store: a layer or a volume, back where it can be used."""

from __future__ import annotations

import asyncio
import contextlib
import os
from fcntl import F_SETPIPE_SZ, fcntl
from io import FileIO
from pathlib import Path

from agent.errors import RestoreFailed, StoreFailed
from agent.host import tar
from agent.host.run import describe_status, spawn
from agent.host.shield import to_the_end
from agent.manifest import Image, Manifest
from agent.serve.prefetch import Prefetch, Stopped, is_streamed
from agent.store import Store

# The most that root's pipes hold by default (/proc/sys/fs/pipe-max-size).
_PIPE_SIZE = 1 << 20


async def unpack(
    store: Store,
    manifest: Manifest,
    image: Image,
    directory: Path,
    *,
    log: Path,
    lock: int | None = None,
) -> None:
    """Put what a tar of ``manifest`` holds into a directory that is there.

    It becomes what it was at the checkpoint, its own owner and permissions included; what is in it
    already stays, or is replaced by what has its name. Nothing outside is written to, whoever made
    the tar. On an error, and when cancelled, a part of it is there: whoever called empties it.

    Args:
        log: a file for tar's complaints.
        lock: a descriptor that tar holds too, so that nobody cleans up under it when we are killed.

    Raises:
        CheckpointCorrupt, StoreFailed: of the checkpoint; StoreFailed also for ``log``.
        RestoreFailed: something could not be put there, or it is no tar.
        MissingTool: there is no tar.
    """
    unpacking = _Unpacking(Prefetch(store, manifest, [image]), image, lock)
    try:
        said = log.open("wb")
    except OSError as error:
        raise StoreFailed("write", str(log), error.strerror or str(error)) from error
    with said:
        status = await unpacking.run(directory, said.fileno())
    reason = tar.complaint(log)
    if status or reason:
        reason = reason or f"tar: {describe_status(status)}"
        raise RestoreFailed(f"{image.name} into {directory}", reason)


class _Unpacking:
    """One tar at work, and the thread that feeds it."""

    def __init__(self, prefetch: Prefetch, image: Image, lock: int | None) -> None:
        self._prefetch, self._image = prefetch, image
        self._held = () if lock is None else (lock,)
        self._feeding: asyncio.Future[None] | None = None

    async def run(self, directory: Path, said: int) -> int:
        """Its exit status. When this returns, tar and all threads have ended."""
        read, write = os.pipe2(os.O_CLOEXEC)
        with os.fdopen(read, "rb", 0) as reader, os.fdopen(write, "wb", 0) as writer:
            with contextlib.suppress(PermissionError):  # then it stays smaller, and slower
                fcntl(writer, F_SETPIPE_SZ, _PIPE_SIZE)
            try:
                return await self._tar(directory, reader, writer, said)
            finally:
                # Wakes a thread that waits for a piece; one that waited for tar, tar's end has.
                self._prefetch.stop()
                if self._feeding is not None:
                    await to_the_end(asyncio.wait([self._feeding]))
                    self._feeding.exception()  # looked at: asyncio does not report it as lost
                await to_the_end(asyncio.to_thread(self._prefetch.close))

    async def _tar(self, directory: Path, reader: FileIO, writer: FileIO, said: int) -> int:
        async with spawn(
            tar.extract(directory),
            env={"LC_ALL": "C"},  # of its complaints
            stdin=reader.fileno(),
            stdout=said,
            stderr=said,
            pass_fds=self._held,
        ) as process:
            reader.close()
            loop = asyncio.get_running_loop()
            self._feeding = loop.run_in_executor(None, self._feed, writer.fileno())
            await asyncio.shield(self._feeding)
            writer.close()
            return await process.wait()

    def _feed(self, pipe: int) -> None:
        """Write the image into ``pipe``, or as much of it as is wanted there. Blocks."""
        self._prefetch.start()
        # Who does not read to the end has failed, and says why; or has found the end mark.
        with contextlib.suppress(BrokenPipeError, Stopped):
            if not is_streamed(self._image):
                _write(pipe, memoryview(self._prefetch.whole(self._image)))
                return
            with self._prefetch.open(self._image) as pieces:
                for data in pieces:
                    _write(pipe, data)
                    del data


def _write(pipe: int, data: memoryview) -> None:
    while data:
        data = data[os.write(pipe, data) :]
