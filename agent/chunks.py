"""Reads what a checkpoint consists of and believes nothing: manifest, chunks, small images.

Every call blocks and may be made from any thread.
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from concurrent.futures import Future
from typing import Final

from agent.compress import decompress
from agent.errors import CheckpointCorrupt, CheckpointNotFound
from agent.frame import FRAME_HEADER_SIZE, Data, digest, unpack_frame_header
from agent.manifest import CHECKPOINT_ID, MANIFEST, MAX_MANIFEST, Chunk, Image, Manifest, from_bytes
from agent.store import Store
from agent.store.url import checkpoint_path

__all__ = [
    "MAX_SMALL_IMAGE",
    "ChunkCache",
    "ChunkReader",
    "checkpoint_path",
    "decode_frame",
    "read_image",
    "read_manifest",
]

# What read_image refuses to hold in memory unless told otherwise; CRIU's small images are KiB.
MAX_SMALL_IMAGE: Final = 16 << 20

_CHECKPOINT_ID: Final = re.compile(CHECKPOINT_ID)


def read_manifest(store: Store, checkpoint_id: str) -> Manifest:
    """The manifest of a committed checkpoint.

    Raises:
        CheckpointNotFound: there is no manifest, so there is no checkpoint.
        CheckpointCorrupt: it is damaged, or belongs to another checkpoint.
        FormatTooNew: a newer agent wrote it.
        StoreFailed: the store cannot be read.
    """
    path = checkpoint_path(store, checkpoint_id)
    # `$` also matches before a final newline: fullmatch does not.
    if not _CHECKPOINT_ID.fullmatch(checkpoint_id):
        raise CheckpointNotFound(path=path)
    name = f"{checkpoint_id}/{MANIFEST}"
    try:
        size = store.size(name)
        if size > MAX_MANIFEST:
            raise CheckpointCorrupt(path=path, reason=f"its manifest of {size} bytes is too big")
        manifest = from_bytes(bytes(store.read(name, 0, size)), path)
    except FileNotFoundError as error:
        raise CheckpointNotFound(path=path) from error
    except EOFError as error:
        raise CheckpointCorrupt(path=path, reason="its manifest is shorter than it was") from error
    if manifest.checkpoint_id != checkpoint_id:
        reason = f"its manifest is that of {manifest.checkpoint_id}"
        raise CheckpointCorrupt(path=path, reason=reason)
    return manifest


class ChunkReader:
    """The chunks of one checkpoint, each one checked before anybody sees a byte of it."""

    def __init__(self, store: Store, manifest: Manifest) -> None:
        self.store = store
        self.manifest = manifest
        self.path = checkpoint_path(store, manifest.checkpoint_id)

    def read(self, number: int) -> Data:
        """The raw bytes of chunk ``number``.

        Raises:
            CheckpointCorrupt: what is stored is not what was written.
            StoreFailed: the store cannot be read.
        """
        chunk = self.manifest.chunks[number]
        stream = self.manifest.streams[chunk.stream].path
        try:
            # Header and payload in one go: the second round trip would cost more than 40 bytes.
            frame = self.store.read(
                f"{self.manifest.checkpoint_id}/{stream}",
                chunk.offset,
                FRAME_HEADER_SIZE + chunk.stored,
            )
            return decode_frame(memoryview(frame), number, chunk)
        except FileNotFoundError as error:
            raise self.damaged(number, "the stream is missing") from error
        except EOFError as error:
            raise self.damaged(number, "the stream ends before it") from error
        except ValueError as error:
            raise self.damaged(number, str(error)) from error

    def damaged(self, number: int, reason: str) -> CheckpointCorrupt:
        """The error for chunk ``number``, with its stream and the first image it is part of."""
        stream = self.manifest.streams[self.manifest.chunks[number].stream].path
        where = f"{stream}, chunk {number}{self._part_of(number)}"
        return CheckpointCorrupt(path=self.path, reason=f"{where}: {reason}")

    def _part_of(self, number: int) -> str:
        for member in self.manifest.members:
            for image in member.images:
                if any(piece.chunk == number for piece in image.pieces):
                    return f" (part of {image.name} of {member.target})"
        for volume in self.manifest.volumes:
            if any(piece.chunk == number for piece in volume.image.pieces):
                return f" (part of volume {volume.name})"
        return ""


def decode_frame(frame: memoryview, number: int, chunk: Chunk) -> Data:
    """The raw bytes in ``frame``. ValueError unless it is what the manifest tells of ``number``."""
    header = unpack_frame_header(frame[:FRAME_HEADER_SIZE])
    said = (number, chunk.raw, chunk.stored, chunk.codec, bytes.fromhex(chunk.digest))
    if said != (header.chunk, header.raw, header.stored, header.codec, header.digest):
        raise ValueError("the frame is not the one the manifest tells of")
    data = decompress(header.codec, frame[FRAME_HEADER_SIZE:], header.raw)
    if digest(data) != header.digest:
        raise ValueError("the bytes do not match their digest")
    return data


class ChunkCache:
    """Chunks that several small images share: read once, also when several ask at the same time."""

    def __init__(self, reader: ChunkReader, capacity: int) -> None:
        """Keep at most ``capacity`` bytes of raw data, the most recently used."""
        self._reader = reader
        self._capacity = capacity
        self._lock = threading.Lock()
        self._chunks: OrderedDict[int, Future[Data]] = OrderedDict()

    def read(self, number: int) -> Data:
        """Like ChunkReader.read."""
        with self._lock:
            known = self._chunks.get(number)
            future = self._chunks.setdefault(number, Future())
            self._chunks.move_to_end(number)
            self._evict()
        if known is None:
            try:
                future.set_result(self._reader.read(number))
            except BaseException as error:
                future.set_exception(error)
                raise
        return future.result()

    def _evict(self) -> None:
        size = sum(self._reader.manifest.chunks[number].raw for number in self._chunks)
        while size > self._capacity and len(self._chunks) > 1:
            number, _ = self._chunks.popitem(last=False)
            size -= self._reader.manifest.chunks[number].raw


def read_image(
    source: ChunkReader | ChunkCache, image: Image, limit: int = MAX_SMALL_IMAGE
) -> bytes:
    """A small image whole.

    Raises:
        CheckpointCorrupt, StoreFailed: as reading its chunks does.
        ValueError: it is bigger than ``limit`` bytes.
    """
    if image.size > limit:
        raise ValueError(f"{image.name} has {image.size} bytes, more than {limit}")
    parts = [
        memoryview(source.read(piece.chunk))[piece.offset : piece.offset + piece.length]
        for piece in image.pieces
    ]
    return b"".join(parts)
