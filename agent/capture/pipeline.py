"""From raw chunks to durable streams: a pool of buffers, compressing threads, stream writers.

    capture ──buffer──► compress (a thread per core) ──frame──► streams (N threads) ──► store

Every stage waits for the next one when that is behind, so memory is bounded whatever the image's
size: the pool bounds raw bytes, the streams bound compressed ones. The first failure of any thread
closes all stages; the owner finds it in ``failure`` and in the exception of whatever it calls next.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue

from agent.capture.buffers import CHUNK_SIZE, BufferPool, Buffers, Closed, SharedPool
from agent.capture.streams import Frame, StreamSet
from agent.compress import Compression, compressor
from agent.frame import Codec, digest
from agent.manifest import Chunk, Stream
from agent.store import Store

__all__ = ["CHUNK_SIZE", "LEAST_CHUNKS", "POOL_CHUNKS", "Pipeline"]

# Raw chunks in memory: how far CRIU (3 GB/s and more) may run ahead of compression, and so what the
# freeze is shorter by. 192 MiB of the 300 MiB that the whole agent may take, less what the store's
# writers hold, but enough to keep all threads busy.
POOL_CHUNKS = 96
LEAST_CHUNKS = 24

# With this part of the memory waiting to be compressed CRIU soon waits for memory, and the tasks
# with it. A codec that yields then lets chunks through as they are. Text on two cores: zstd:1 takes
# 0.4 GB/s, CRIU gives 3.
YIELDING_PART = 3 / 4

# More cores than this outrun what one CRIU delivers.
MOST_WORKERS = 16


class Pipeline:
    """One checkpoint's way to storage. Chunks are numbered in the order they are submitted."""

    def __init__(
        self,
        store: Store,
        checkpoint_id: str,
        *,
        streams: int,
        compression: Compression,
        on_failure: Callable[[], None],
        shared: SharedPool | None = None,
    ) -> None:
        """``shared`` is memory to work in; without it the pipeline has its own."""
        self.failure: BaseException | None = None
        self.pool: Buffers = _own_memory(store, streams) if shared is None else shared.lend()
        self.bytes_raw = 0
        self.chunks = 0
        self._on_failure = on_failure
        self._failing = threading.Lock()
        self._numbering = threading.Lock()
        self._populating: threading.Thread | None = None
        self._compression = compression
        self._streams = StreamSet(store, checkpoint_id, streams, self.fail)
        self._queue: SimpleQueue[tuple[int, memoryview, int] | None] = SimpleQueue()
        workers = min(MOST_WORKERS, len(os.sched_getaffinity(0)))
        self._workers = [
            threading.Thread(target=self._compress, name=f"compress-{n}", daemon=True)
            for n in range(workers)
        ]

    def start(self, expected: int) -> None:
        """Start all threads, and prepare memory for about ``expected`` raw bytes."""
        # Beside runc's start-up, so that none of our page faults falls into the freeze.
        populate = partial(self.pool.populate, expected)
        self._populating = threading.Thread(target=populate, name="populate", daemon=True)
        self._populating.start()
        self._streams.start()
        for worker in self._workers:
            worker.start()

    def wait_prepared(self) -> None:
        """Return when the memory is prepared: for those who freeze before they start anything."""
        if self._populating is not None:
            self._populating.join()

    @property
    def bytes_stored(self) -> int:
        """Bytes handed to storage so far."""
        return self._streams.bytes_written

    def submit(self, buffer: memoryview, length: int) -> int:
        """Hand over the first ``length`` bytes of a pool's buffer; the number of the new chunk.

        From any thread: the members of a checkpoint come side by side.
        """
        with self._numbering:
            number = self.chunks
            self.chunks += 1
            self.bytes_raw += length
            self.pool.hand_over(buffer)
            self._queue.put((number, buffer, length))
        return number

    def finish(self) -> tuple[list[Stream], list[Chunk]]:
        """Compress and store the rest; when this returns, all streams are durable.

        Raises:
            AgentError: whatever made a thread fail.
        """
        self._stop_workers()
        try:
            streams, index = self._streams.finish()
        except Closed:
            self.raise_failure()
            raise
        self.raise_failure()
        return streams, [index[number] for number in range(self.chunks)]

    def abort(self) -> None:
        """End all threads and drop what was written. May be called after a failure."""
        self.pool.close()
        # Streams first: workers that wait for them are woken, and nothing that waits is stored.
        self._streams.abort()
        self._stop_workers()

    def end(self) -> None:
        """Give the memory back. When all threads have ended, also those that fill buffers."""
        self.pool.end()

    def raise_failure(self) -> None:
        """Raise what a thread failed with, if one has."""
        if self.failure is not None:
            raise self.failure

    def fail(self, error: BaseException) -> None:
        """Record the first failure and close all stages. From any thread."""
        with self._failing:
            first = self.failure is None
            if first:
                self.failure = error
        if first:
            self.pool.close()
            self._on_failure()

    def _stop_workers(self) -> None:
        for _ in self._workers:
            self._queue.put(None)
        for worker in self._workers:
            if worker.ident is not None:
                worker.join()

    def _compress(self) -> None:
        try:
            mine = compressor(self._compression)
        except BaseException as error:  # noqa: BLE001 - handed to the owner, never lost
            self.fail(error)
            return
        while (item := self._queue.get()) is not None:
            number, buffer, length = item
            release: Callable[[], None] = partial(self.pool.release, buffer)
            if self.failure is not None:
                release()
                continue
            try:
                raw = buffer[:length]
                hashed = digest(raw)
                codec, payload = (Codec.NONE, raw) if self._yields() else mine.compress(raw)
                if payload is not raw:
                    # The buffer is free as soon as its content is in the payload.
                    release()
                    release = _nothing
                self._streams.put(Frame(number, codec, length, payload, hashed, release))
            except Closed:
                release()
            except BaseException as error:  # noqa: BLE001 - handed to the owner, never lost
                release()
                self.fail(error)

    def _yields(self) -> bool:
        """Whether compression, and not storage, is what CRIU is about to wait for."""
        if not self._compression.yields or self._streams.is_behind:
            return False
        return self._queue.qsize() >= self.pool.capacity * YIELDING_PART


def _own_memory(store: Store, streams: int) -> BufferPool:
    spared = streams * store.writer_memory // CHUNK_SIZE
    return BufferPool(count=max(LEAST_CHUNKS, POOL_CHUNKS - spared), size=CHUNK_SIZE)


def _nothing() -> None:
    """What is left to do for a frame whose buffer was given back before."""
