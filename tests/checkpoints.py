"""Makes valid checkpoints out of bytes, the plain way, for tests of everything that reads them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from agent.compress import compressor, parse_compression
from agent.frame import (
    FRAME_HEADER_SIZE,
    STREAM_HEADER_SIZE,
    EndMark,
    FrameHeader,
    digest,
    pack_end_mark,
    pack_frame_header,
    pack_stream_header,
)
from agent.manifest import (
    MANIFEST,
    Chunk,
    Host,
    Image,
    ImageKind,
    Manifest,
    Member,
    Piece,
    Stream,
    to_bytes,
)
from agent.store.base import Store

ID = "sample"

KINDS: Mapping[str, ImageKind] = {
    "descriptors.json": "runc",
    "config.json": "bundle",
    "stats-dump": "stats",
    "rootfs-diff.tar": "rootfs",
}


@dataclass
class _Streams:
    """Frames in memory, dealt round the streams."""

    checkpoint_id: str
    compression: str
    count: int
    chunks: list[Chunk] = field(default_factory=list)
    data: list[bytearray] = field(init=False)
    frames: list[int] = field(init=False)

    def __post_init__(self) -> None:
        headers = (pack_stream_header(self.checkpoint_id, at) for at in range(self.count))
        self.data = [bytearray(header) for header in headers]
        self.frames = [0] * self.count

    def add(self, raw: bytes) -> int:
        number, stream = len(self.chunks), len(self.chunks) % self.count
        codec, payload = compressor(parse_compression(self.compression)).compress(raw)
        header = FrameHeader(codec, number, len(raw), len(payload), digest(raw))
        offset = len(self.data[stream])
        self.data[stream] += pack_frame_header(header) + payload
        self.frames[stream] += 1
        self.chunks.append(
            Chunk(stream, offset, len(payload), len(raw), codec, header.digest.hex())
        )
        return number

    def finish(self, store: Store) -> list[Stream]:
        finished = []
        for at, (data, frames) in enumerate(zip(self.data, self.frames, strict=True)):
            data += pack_end_mark(EndMark(frames, len(data) + 32))
            store.put(f"{self.checkpoint_id}/stream-{at:03}", data)
            finished.append(Stream(path=f"stream-{at:03}", bytes=len(data), frames=frames))
        return finished


def member(target: str, images: list[Image]) -> Member:
    """A container with these images."""
    return Member(
        name=target,
        kind="runc",
        target=target,
        pid=4711,
        bundle="/b",
        runc_root="/r",
        images=images,
    )


def write_checkpoint(
    store: Store,
    *members: Mapping[str, bytes],
    checkpoint_id: str = ID,
    compression: str = "zstd:1",
    streams: int = 2,
    chunk_size: int = 1 << 20,
    created_at: str = "2025-01-02T03:04:05Z",
) -> Manifest:
    """Write a checkpoint of members ``c0``, ``c1``, ... with the images given as name and bytes.

    ``pages-*`` get chunks of their own; all others of a member share theirs.
    """
    writer = _Streams(checkpoint_id, compression, streams)
    made = [
        member(f"c{at}", [*_small(writer, images, chunk_size), *_pages(writer, images, chunk_size)])
        for at, images in enumerate(members)
    ]
    manifest = Manifest(
        checkpoint_id=checkpoint_id,
        name=None,
        created_at=created_at,
        agent_version="0",
        host=Host(name="here", kernel="6", architecture="x86_64", criu="4.1.1", runc="1.1.5"),
        codec=compression,
        streamed=True,
        fallback_reason=None,
        frozen_seconds=0.25,
        phases={"dump": 0.5},
        members=made,
        streams=writer.finish(store),
        chunks=writer.chunks,
    )
    store.put(f"{checkpoint_id}/{MANIFEST}", to_bytes(manifest))
    return manifest


def _split(data: bytes, size: int) -> Iterable[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


def _pages(writer: _Streams, images: Mapping[str, bytes], size: int) -> Iterable[Image]:
    for name, data in images.items():
        if name.startswith("pages-"):
            pieces = [Piece(writer.add(part), 0, len(part)) for part in _split(data, size)]
            yield Image(name=name, kind="criu", size=len(data), pieces=pieces)


def _small(writer: _Streams, images: Mapping[str, bytes], size: int) -> Iterable[Image]:
    small = {name: data for name, data in images.items() if not name.startswith("pages-")}
    together = b"".join(small.values())
    numbers = [writer.add(part) for part in _split(together, size)]
    at = 0
    for name, data in small.items():
        pieces = []
        end = at + len(data)
        while at < end:
            length = min(end - at, size - at % size)
            pieces.append(Piece(numbers[at // size], at % size, length))
            at += length
        kind = KINDS.get(name, "criu")
        yield Image(name=name, kind=kind, size=len(data), pieces=pieces)


def first_frame_end(manifest: Manifest, stream: int) -> int:
    """Where the first frame of a stream ends."""
    sizes = [
        FRAME_HEADER_SIZE + chunk.stored for chunk in manifest.chunks if chunk.stream == stream
    ]
    return STREAM_HEADER_SIZE + sizes[0]


def replace(store: Store, path: str, data: bytes) -> None:
    """Put other bytes in the place of an object."""
    store.delete(path)
    store.put(path, data)


def content(store: Store, path: str) -> bytes:
    """All bytes of an object."""
    return bytes(store.read(path, 0, store.size(path)))


def flip(store: Store, path: str, offset: int) -> None:
    """Flip the lowest bit of one byte of an object; a negative offset counts from its end."""
    data = bytearray(content(store, path))
    data[offset] ^= 1
    replace(store, path, bytes(data))


def flip_payload(store: Store, manifest: Manifest, chunk: int) -> None:
    """Flip a bit in the middle of a chunk's payload."""
    entry = manifest.chunks[chunk]
    path = f"{manifest.checkpoint_id}/{manifest.streams[entry.stream].path}"
    flip(store, path, entry.offset + FRAME_HEADER_SIZE + entry.stored // 2)
