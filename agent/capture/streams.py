"""N streams of one checkpoint, written side by side: frames in, durable objects out.

Each stream has a thread and a queue of its own, so that storage that blocks on one does not stop
the others; a frame goes to the stream with the least waiting. Bytes that wait to be written are
bounded together, not per stream.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue

from agent.capture.buffers import ByteBudget, Closed
from agent.frame import (
    END_MARK_SIZE,
    FRAME_HEADER_SIZE,
    STREAM_HEADER_SIZE,
    Codec,
    Data,
    EndMark,
    FrameHeader,
    pack_end_mark,
    pack_frame_header,
    pack_stream_header,
)
from agent.manifest import Chunk, Stream
from agent.store import ObjectWriter, Store

# Compressed bytes waiting for storage. Enough for storage's hiccups (a page-cache flush of 100 ms
# at 300 MB/s), small beside the 300 MiB that the whole agent may take.
WAITING_BYTES = 32 << 20

# Called from a writer's thread with the first failure of the set.
OnFailure = Callable[[BaseException], None]


@dataclass(frozen=True, slots=True)
class Frame:
    """A compressed chunk on its way to storage. ``done`` gives its memory back."""

    number: int
    codec: Codec
    raw: int
    payload: Data
    digest: bytes
    done: Callable[[], None]


class StreamSet:
    """All streams of one checkpoint. ``put`` from any thread; the rest from the owner's."""

    def __init__(self, store: Store, checkpoint_id: str, count: int, on_failure: OnFailure) -> None:
        self._budget = ByteBudget(WAITING_BYTES)
        self._writers = [
            _Writer(store, checkpoint_id, number, self._budget, on_failure)
            for number in range(count)
        ]

    def start(self) -> None:
        """Start the writers' threads."""
        for writer in self._writers:
            writer.thread.start()

    def put(self, frame: Frame) -> None:
        """Hand a frame over; waits while storage is behind. Raises Closed after a failure."""
        self._budget.take(len(frame.payload))
        # The shortest queue; between equals the shortest stream, so that all grow alike.
        min(self._writers, key=lambda each: (each.queue.qsize(), each.length)).queue.put(frame)

    def finish(self) -> tuple[list[Stream], dict[int, Chunk]]:
        """Wait until every stream is durable and visible; the index of what is in them.

        Raises Closed when a writer has failed; ``on_failure`` has been told why.
        """
        for writer in self._writers:
            writer.queue.put(None)
        for writer in self._writers:
            writer.thread.join()
        if any(writer.stream is None for writer in self._writers):
            raise Closed
        streams = [writer.stream for writer in self._writers if writer.stream is not None]
        index = {number: chunk for writer in self._writers for number, chunk in writer.chunks}
        return streams, index

    def abort(self) -> None:
        """End the threads and drop what was written.

        Streams already committed stay, unreferenced.
        """
        self._budget.close()
        for writer in self._writers:
            writer.aborted = True
            writer.queue.put(None)
        for writer in self._writers:
            if writer.thread.ident is not None:
                writer.thread.join()

    @property
    def is_behind(self) -> bool:
        """Whether storage is slower than what comes: more bytes would only make it worse."""
        return self._budget.taken > WAITING_BYTES // 2

    @property
    def bytes_written(self) -> int:
        """Bytes handed to storage so far."""
        return sum(writer.length for writer in self._writers)


class _Writer:
    """One stream: its thread, its queue and its place in the object."""

    def __init__(
        self,
        store: Store,
        checkpoint_id: str,
        number: int,
        budget: ByteBudget,
        on_failure: OnFailure,
    ) -> None:
        self.queue: SimpleQueue[Frame | None] = SimpleQueue()
        self.length = 0
        self.chunks: list[tuple[int, Chunk]] = []
        self.stream: Stream | None = None
        self.aborted = False
        self._ended = False
        self._store, self._checkpoint_id, self._number = store, checkpoint_id, number
        self._budget, self._on_failure = budget, on_failure
        self.thread = threading.Thread(target=self._run, name=f"stream-{number:03}", daemon=True)

    def _run(self) -> None:
        path = f"stream-{self._number:03}"
        writer: ObjectWriter | None = None
        try:
            writer = self._store.create(f"{self._checkpoint_id}/{path}")
            self._write_all(writer)
            if self.aborted:
                writer.abort()
                return
            writer.commit()
            self.stream = Stream(path=path, bytes=self.length, frames=len(self.chunks))
        except BaseException as error:  # noqa: BLE001 - handed to the owner, never lost
            # First of all: who waits for memory that this thread has may have frozen tasks.
            self._on_failure(error)
            try:
                if writer is not None:
                    writer.abort()
            finally:
                self._drop_rest()

    def _write_all(self, writer: ObjectWriter) -> None:
        writer.write(pack_stream_header(self._checkpoint_id, self._number))
        self.length = STREAM_HEADER_SIZE
        while (frame := self._next()) is not None:
            try:
                if not self.aborted:
                    self._write(writer, frame)
            finally:
                self._release(frame)
        self.length += END_MARK_SIZE
        writer.write(pack_end_mark(EndMark(len(self.chunks), self.length)))

    def _write(self, writer: ObjectWriter, frame: Frame) -> None:
        stored = len(frame.payload)
        header = FrameHeader(frame.codec, frame.number, frame.raw, stored, frame.digest)
        writer.write(pack_frame_header(header))
        writer.write(frame.payload)
        entry = Chunk(self._number, self.length, stored, frame.raw, frame.codec, frame.digest.hex())
        self.chunks.append((frame.number, entry))
        self.length += FRAME_HEADER_SIZE + stored

    def _next(self) -> Frame | None:
        """The next frame; None at the end, which comes only once."""
        frame = self.queue.get()
        self._ended = frame is None
        return frame

    def _release(self, frame: Frame) -> None:
        self._budget.give(len(frame.payload))
        frame.done()

    def _drop_rest(self) -> None:
        """After a failure: keep giving memory back until the owner says it is over."""
        while not self._ended:
            if (frame := self._next()) is not None:
                self._release(frame)
