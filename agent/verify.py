"""Reads a whole checkpoint again and tells everything that is not as it was written."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from agent.chunks import ChunkReader, decode_frame, read_manifest
from agent.errors import CheckpointCorrupt
from agent.frame import (
    END_MARK_SIZE,
    FRAME_HEADER_SIZE,
    STREAM_HEADER_SIZE,
    EndMark,
    check_stream_header,
    unpack_end_mark,
)
from agent.layout import Range, gaps, ranges
from agent.report import Observer, Update, ignore, watched
from agent.store import Store

# A worker holds a range of 8 MiB and a decompressed chunk.
MAX_WORKERS: Final = 8

# Damage is told up to here; a checkpoint with more is no better for a longer list.
MAX_DAMAGE: Final = 20


@dataclass(frozen=True, slots=True)
class VerifyResult:
    """What ``verify`` returns and prints of a checkpoint that is whole. Sizes in bytes."""

    checkpoint_id: str
    path: str
    members: int
    images: int
    streams: int
    chunks: int
    bytes_raw: int
    bytes_stored: int
    wall_seconds: float


async def verify(store: Store, checkpoint_id: str, *, observer: Observer = ignore) -> VerifyResult:
    """Check every byte of a checkpoint: manifest, headers, frames, digests, end marks.

    Cancellable; its threads have ended when it returns, but for one that looks into a store which
    does not answer.

    Raises:
        CheckpointNotFound: there is none.
        CheckpointCorrupt: something is damaged; the reason tells what, up to MAX_DAMAGE places.
        FormatTooNew: a newer agent wrote it.
        StoreFailed: the store cannot be read.
    """
    begin = time.monotonic()
    count = min(MAX_WORKERS, os.cpu_count() or 1)
    # Not the event loop's: who asks may give up and come again while the store hangs, and would
    # take one from what freezes and thaws each time.
    pool = ThreadPoolExecutor(count, thread_name_prefix="verify")
    try:
        loop = asyncio.get_running_loop()
        manifest = await loop.run_in_executor(pool, read_manifest, store, checkpoint_id)
        reader = ChunkReader(store, manifest)
        verification = _Verification(reader)
        async with watched(observer, verification.progress):
            await verification.run(pool, count)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    verification.conclude()
    return VerifyResult(
        checkpoint_id=checkpoint_id,
        path=reader.path,
        members=len(manifest.members),
        images=len(list(manifest.images())),
        streams=len(manifest.streams),
        chunks=len(manifest.chunks),
        bytes_raw=manifest.bytes_raw,
        bytes_stored=manifest.bytes_stored,
        wall_seconds=round(time.monotonic() - begin, 6),
    )


class _Verification:
    """One pass over a checkpoint, in threads; collects damage instead of stopping at the first."""

    def __init__(self, reader: ChunkReader) -> None:
        self._reader = reader
        self._manifest = reader.manifest
        self._total = sum(chunk.raw for chunk in reader.manifest.chunks)
        self._lock = threading.Lock()
        self._stopped = False
        self._damage: list[str] = []
        self._places = 0
        self._raw = self._stored = 0

    def progress(self) -> Update:
        return Update("verify", self._raw, self._stored, self._total)

    async def run(self, pool: Executor, count: int) -> None:
        """Check everything, in ``count`` threads. Raises StoreFailed; damage is only collected."""
        loop = asyncio.get_running_loop()
        for reason in gaps(self._manifest):
            self._found(reason)
        sizes = [
            await loop.run_in_executor(pool, self._check_ends, number)
            for number in range(len(self._manifest.streams))
        ]
        # What a cut off or missing stream no longer has was told of with the stream.
        left = iter([one for one in ranges(self._manifest) if one.end <= sizes[one.stream]])
        work = [loop.run_in_executor(pool, self._check_ranges, left) for _ in range(count)]
        try:
            await asyncio.wait(work, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            self._stopped = True
            await asyncio.wait(work)
            pool.shutdown()
            errors = [error for one in work if (error := one.exception())]
        if errors:
            raise errors[0]

    def conclude(self) -> None:
        """Raise CheckpointCorrupt with what was found, if anything was."""
        if not self._places:
            return
        more = self._places - len(self._damage)
        found = "; ".join(self._damage) + (f"; and {more} more" if more else "")
        raise CheckpointCorrupt(path=self._reader.path, reason=found)

    def _found(self, reason: str) -> None:
        with self._lock:
            self._places += 1
            if len(self._damage) < MAX_DAMAGE:
                self._damage.append(reason)

    def _damaged(self, number: int, reason: str) -> None:
        with self._lock:
            is_told = len(self._damage) < MAX_DAMAGE
        # What a chunk is a part of takes a look at all images: not for each of a million.
        self._found(self._reader.damaged(number, reason).reason if is_told else reason)

    def _check_ends(self, number: int) -> int:
        """Check a stream's header, end mark and length; the bytes that are there."""
        stream = self._manifest.streams[number]
        path = f"{self._manifest.checkpoint_id}/{stream.path}"
        store = self._reader.store
        size = 0
        try:
            size = store.size(path)
            header = store.read(path, 0, STREAM_HEADER_SIZE)
            check_stream_header(header, self._manifest.checkpoint_id, number)
            mark = unpack_end_mark(store.read(path, max(0, size - END_MARK_SIZE), END_MARK_SIZE))
            if mark != EndMark(stream.frames, stream.bytes) or size != stream.bytes:
                raise ValueError(f"{size} bytes where the manifest tells of {stream.bytes}")
        except FileNotFoundError:
            self._found(f"{stream.path} is missing")
        except EOFError:
            self._found(f"{stream.path}: only {size} bytes are left of it")
        except ValueError as error:
            self._found(f"{stream.path}: {error}")
        return size

    def _check_ranges(self, left: Iterator[Range]) -> None:
        while not self._stopped:
            with self._lock:
                one = next(left, None)
            if one is None:
                return
            self._check_range(one)

    def _check_range(self, one: Range) -> None:
        stream = self._manifest.streams[one.stream].path
        path = f"{self._manifest.checkpoint_id}/{stream}"
        try:
            data = memoryview(self._reader.store.read(path, one.offset, one.end - one.offset))
        except (EOFError, FileNotFoundError):
            self._found(f"{stream}: bytes {one.offset} to {one.end} are gone")
            return
        for number in one.chunks:
            chunk = self._manifest.chunks[number]
            at = chunk.offset - one.offset
            try:
                decode_frame(data[at : at + FRAME_HEADER_SIZE + chunk.stored], number, chunk)
            except ValueError as error:
                self._damaged(number, str(error))
            with self._lock:
                self._raw += chunk.raw
                self._stored += chunk.stored
