"""Images on their way into chunks: large ones get chunks of their own, small ones share.

A container of 200 tasks has over a thousand images of a few hundred bytes; a chunk each would mean
a frame, a compression and a read at restore for every one of them.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

from agent.capture.pipeline import CHUNK_SIZE, Pipeline
from agent.frame import Data
from agent.manifest import Image, ImageKind, Piece

# An image that has grown beyond this gets chunks of its own. All images of a task but its pages are
# a few KiB, so a small container is one or two chunks.
SMALL_IMAGE = 256 << 10


class Filling(Protocol):
    """Who fills a buffer, or will."""

    @property
    def filled(self) -> int:
        """Bytes in its buffer; 0 without one."""

    def flush(self) -> None:
        """Submit what there is."""


class Desk:
    """Gives out buffers to those who fill them side by side, all in one thread.

    Nobody waits for a buffer and holds on to others: members that are dumped side by side would do
    so until none is left, and nothing on its way that could come back. Chunks may be short.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self._filling: set[Filling] = set()

    def acquire(self, who: Filling) -> memoryview:
        """A buffer for ``who``, until it lets go of that. Waits until there is one. Raises Closed.

        Somebody else's may be submitted for it.
        """
        pool = self.pipeline.pool
        while (buffer := pool.acquire_coming()) is None:
            fullest = max(self._filling, key=lambda each: each.filled, default=None)
            if fullest is None:
                # All of them lie with other members, who are not waiting, or submit theirs.
                buffer = pool.acquire()
                break
            fullest.flush()
        self._filling.add(who)
        return buffer

    def let_go(self, who: Filling) -> None:
        """It has no buffer any more."""
        self._filling.discard(who)


class SharedChunks:
    """Small images, one behind the other."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._buffer: memoryview | None = None
        self._filled = 0
        # The number a chunk will get is only known when it is submitted: pieces wait for it.
        self._waiting: list[tuple[Image, int, int]] = []

    @property
    def filled(self) -> int:
        """Bytes of images in the current chunk."""
        return self._filled

    def add(self, name: str, kind: ImageKind, data: bytes | bytearray) -> Image:
        """Put an image into the current chunk; its pieces are filled in when that is complete."""
        image = Image(name=name, kind=kind, size=len(data), pieces=[])
        at = 0
        while at < len(data):
            if self._buffer is None:
                self._buffer = self._desk.acquire(self)
            length = min(len(data) - at, CHUNK_SIZE - self._filled)
            self._buffer[self._filled : self._filled + length] = data[at : at + length]
            self._waiting.append((image, self._filled, length))
            self._filled += length
            at += length
            if self._filled == CHUNK_SIZE:
                self.flush()
        return image

    def flush(self) -> None:
        """Submit what there is."""
        if self._buffer is None:
            return
        self._desk.let_go(self)
        number = self._desk.pipeline.submit(self._buffer, self._filled)
        for image, offset, length in self._waiting:
            image.pieces.append(Piece(number, offset, length))
        self._waiting.clear()
        self._buffer, self._filled = None, 0


class IncomingImage:
    """One image that somebody is writing into a pipe."""

    def __init__(self, name: str, kind: ImageKind, desk: Desk, shared: SharedChunks) -> None:
        self.name, self._kind = name, kind
        self._desk, self._shared = desk, shared
        self._small = bytearray()
        self._buffer: memoryview | None = None
        self._filled = 0
        self._pieces: list[Piece] = []

    @property
    def filled(self) -> int:
        """Bytes in the chunk that it has to itself, and that is not submitted yet."""
        return self._filled

    def read(self, pipe: int, scratch: memoryview) -> bool:
        """Take what is in the pipe; False at its end. Waits for a buffer, and so CRIU for us.

        Args:
            scratch: memory for small reads, SMALL_IMAGE bytes.
        """
        if self._buffer is None and not self._pieces:
            return self._read_small(pipe, scratch)
        if self._buffer is None:
            self._buffer = self._desk.acquire(self)
        length = os.readv(pipe, [self._buffer[self._filled :]])
        self._filled += length
        if self._filled == CHUNK_SIZE:
            self.flush()
        return length > 0

    def write(self, data: Data) -> None:
        """Take bytes that are in memory already. Waits for a buffer, as reading does."""
        if self._buffer is None and not self._pieces:
            if len(self._small) + len(data) <= SMALL_IMAGE:
                self._small += data
                return
            self._outgrow()
        rest = memoryview(data)
        while rest:
            if self._buffer is None:
                self._buffer = self._desk.acquire(self)
            length = min(len(rest), CHUNK_SIZE - self._filled)
            self._buffer[self._filled : self._filled + length] = rest[:length]
            self._filled += length
            rest = rest[length:]
            if self._filled == CHUNK_SIZE:
                self.flush()

    def finish(self) -> Image:
        """The whole image, after its end was read."""
        if self._buffer is None and not self._pieces:
            return self._shared.add(self.name, self._kind, self._small)
        self.flush()
        size = sum(piece.length for piece in self._pieces)
        return Image(name=self.name, kind=self._kind, size=size, pieces=self._pieces)

    def _read_small(self, pipe: int, scratch: memoryview) -> bool:
        length = os.readv(pipe, [scratch])
        self._small += scratch[:length]
        if len(self._small) > SMALL_IMAGE:
            self._outgrow()
        return length > 0

    def _outgrow(self) -> None:
        """From here on it has chunks of its own."""
        self._buffer = self._desk.acquire(self)
        self._filled = len(self._small)
        self._buffer[: self._filled] = self._small
        self._small.clear()

    def flush(self) -> None:
        """Submit what there is; an empty buffer is given back."""
        if self._buffer is None:
            return
        self._desk.let_go(self)
        if self._filled:
            number = self._desk.pipeline.submit(self._buffer, self._filled)
            self._pieces.append(Piece(number, 0, self._filled))
        else:
            self._desk.pipeline.pool.release(self._buffer)
        self._buffer, self._filled = None, 0


class ImageSet:
    """All images of one member, as they come in."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._desk = Desk(pipeline)
        self._shared = SharedChunks(self._desk)
        self._images: list[Image] = []

    def incoming(self, name: str, kind: ImageKind = "criu") -> IncomingImage:
        """Begin an image that is read from a file; hand it to :meth:`finished` at its end."""
        return IncomingImage(name, kind, self._desk, self._shared)

    def finished(self, image: IncomingImage) -> None:
        """The image has been read to its end."""
        self._images.append(image.finish())

    def add(self, name: str, kind: ImageKind, data: bytes) -> None:
        """Take an image that is in memory."""
        self._images.append(self._shared.add(name, kind, data))

    def import_directory(self, directory: Path) -> None:
        """Take all of CRIU's image files in a directory."""
        scratch = memoryview(bytearray(SMALL_IMAGE))
        for path in sorted(directory.glob("*.img")):
            image = self.incoming(path.name)
            with path.open("rb", buffering=0) as file:
                while image.read(file.fileno(), scratch):
                    pass
            self.finished(image)

    def flush(self) -> None:
        """Submit the last chunk, so that no half-filled buffer is kept."""
        self._shared.flush()

    def complete(self) -> list[Image]:
        """No more images: all of them, their last chunk submitted."""
        self.flush()
        return self._images
