"""Reads a member's chunks ahead of CRIU: in parallel, within a budget, in order for each image.

Worker threads read, check and decompress; one consumer per image takes its pieces in order. CRIU
restores many tasks at once, so many images are consumed at the same time, at speeds nobody knows.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from typing import Final

from agent.chunks import ChunkCache, ChunkReader, read_image
from agent.config import MIB
from agent.errors import AgentError, RestoreFailed
from agent.frame import MAX_CHUNK
from agent.manifest import Image, Manifest
from agent.serve.readahead import Job, Queue, Schedule
from agent.store import Store

# Decompressed bytes that wait to be consumed, of which CACHE for chunks that small images share
# (a process has about 50 KiB of them). The whole agent was seen to take 157 MiB at its peak.
DEFAULT_BUDGET: Final = 96 * MIB
CACHE: Final = 16 * MIB

# One worker per core, as decompression (2.4 GB/s a core) is what takes the time; beyond eight,
# CRIU's page faults are what it waits for. Four at least, because an object store is waited for: on
# two cores with local files four took 1.30 s for 1 GiB, two 1.25 s, eight 1.54 s.
MIN_WORKERS: Final = 4
MAX_WORKERS: Final = 8

# Pages images up to this size share chunks with others and are held whole.
SMALL_PAGES: Final = 256 << 10


class Stopped(Exception):
    """The prefetch was closed while a consumer waited for a piece."""


def is_streamed(image: Image) -> bool:
    """Whether an image is consumed piece by piece instead of held whole."""
    return image.size > (SMALL_PAGES if image.name.startswith("pages-") else MAX_CHUNK)


class Prefetch:
    """Images on their way out of a store. Every method may be called from any thread."""

    def __init__(
        self,
        store: Store,
        manifest: Manifest,
        images: Iterable[Image],
        *,
        budget: int = DEFAULT_BUDGET,
        workers: int | None = None,
    ) -> None:
        """Prepare to read ``images``, which are expected to be consumed in about this order.

        ``budget`` bytes are held at most, plus one chunk for each image being consumed.
        """
        images = list(images)
        cache = min(CACHE, budget // 4)
        self.reader = ChunkReader(store, manifest)
        self._cache = ChunkCache(self.reader, cache)
        self._lock = threading.Lock()
        self._room = threading.Condition(self._lock)
        self._consumers: dict[Queue, threading.Condition] = {}
        streamed = [image for image in images if is_streamed(image)]
        self._schedule = Schedule(manifest.chunks, streamed, budget - cache)
        self._warm = iter(_shared_chunks(manifest, images, cache))
        self._ready: dict[Job, memoryview] = {}
        self._error: AgentError | None = None
        self._closed = False
        self._threads = [
            threading.Thread(target=self._work, name=f"prefetch-{number}")
            for number in range(workers or max(MIN_WORKERS, min(MAX_WORKERS, os.cpu_count() or 1)))
        ]

    @property
    def held(self) -> int:
        """Bytes of streamed images in memory or on their way there."""
        return self._schedule.held

    def start(self) -> None:
        """Begin to read ahead: small images first, then the others in their order."""
        for thread in self._threads:
            thread.start()

    def whole(self, image: Image) -> bytes:
        """A small image, checked to its last byte. Raises as ChunkReader.read does."""
        return read_image(self._cache, image)

    @contextmanager
    def open(self, image: Image) -> Iterator[Iterator[memoryview]]:
        """The pieces of an image in order, each to be let go before the next one is asked for.

        Raises:
            Stopped: while iterating, when the prefetch was closed.
            AgentError: while iterating, the first error of any image.
        """
        with self._lock:
            queue = self._schedule.open(image)
            self._consumers[queue] = threading.Condition(self._lock)
            self._room.notify_all()
        try:
            with closing(self._pieces(queue)) as pieces:
                yield pieces
        finally:
            self._drop(queue)

    def stop(self, error: AgentError | None = None) -> None:
        """Read nothing more; consumers get the first error, or Stopped. Returns at once."""
        with self._lock:
            if not self._closed:
                self._error = error
            self._closed = True
            self._ready.clear()
            self._room.notify_all()
            for consumer in self._consumers.values():
                consumer.notify()

    def check(self) -> None:
        """For whoever reads besides. Raises Stopped, or the first error, when it is to end."""
        with self._lock:
            self._check()

    def close(self) -> None:
        """Stop reading and wait for the threads. May be called twice."""
        self.stop()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()

    def _pieces(self, queue: Queue) -> Generator[memoryview, None, None]:
        for number in range(len(queue.image.pieces)):
            data = self._take(Job(queue, number))
            try:
                yield data
            finally:
                del data
                with self._lock:
                    self._give_back(Job(queue, number))

    def _take(self, job: Job) -> memoryview:
        with self._lock:
            self._consumers[job.queue].wait_for(lambda: self._closed or job in self._ready)
            self._check()
            return self._ready.pop(job)

    def _check(self) -> None:
        if self._error is not None:
            raise self._error
        if self._closed:
            raise Stopped

    def _give_back(self, job: Job) -> None:
        self._schedule.give_back(*job)
        self._room.notify_all()

    def _drop(self, queue: Queue) -> None:
        with self._lock:
            self._schedule.drop(queue)
            del self._consumers[queue]
            for job in [job for job in self._ready if job.queue is queue]:
                del self._ready[job]
                self._give_back(job)

    def _work(self) -> None:
        try:
            for chunk in self._shared():
                self._cache.read(chunk)
            while job := self._next_job():
                self._deliver(job, self._read(job))
        except AgentError as error:
            self.stop(error)
        except BaseException as error:
            # Nobody may be left waiting for this thread, or for what it was about to read.
            self.stop(RestoreFailed(self.reader.path, f"a defect of the agent: {error!r}"))
            raise

    def _shared(self) -> Iterator[int]:
        while True:
            with self._lock:
                chunk = None if self._closed else next(self._warm, None)
            if chunk is None:
                return
            yield chunk

    def _next_job(self) -> Job | None:
        with self._lock:
            while not self._closed:
                if job := self._schedule.pick():
                    return job
                self._room.wait()
        return None

    def _read(self, job: Job) -> memoryview:
        piece = job.queue.image.pieces[job.piece]
        data = memoryview(self.reader.read(piece.chunk))
        return data[piece.offset : piece.offset + piece.length]

    def _deliver(self, job: Job, data: memoryview) -> None:
        with self._lock:
            if job.queue.dropped or self._closed:
                self._give_back(job)
                return
            self._ready[job] = data
            if consumer := self._consumers.get(job.queue):
                consumer.notify()


def _shared_chunks(manifest: Manifest, images: Iterable[Image], room: int) -> Iterator[int]:
    """The chunks of small images, each once, as many as the cache can keep."""
    small = (image for image in images if not is_streamed(image))
    for chunk in dict.fromkeys(piece.chunk for image in small for piece in image.pieces):
        room -= manifest.chunks[chunk].raw
        if room < 0:
            return
        yield chunk
