"""Pipelines under test: fed from bytes, read back through the agent's own reader."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from agent.capture.buffers import BufferPool, SharedPool
from agent.capture.pipeline import Pipeline
from agent.chunks import ChunkReader
from agent.compress import Compression, parse_compression
from agent.manifest import Chunk, Host, Image, Manifest, Member, Piece, Stream
from agent.store.base import Store
from tests.waiting import eventually

ID = "sample"
_THREADS = ("compress-", "stream-", "populate", "capture")


def threads() -> list[str]:
    """Names of the data path's threads that are alive."""
    return sorted(
        thread.name for thread in threading.enumerate() if thread.name.startswith(_THREADS)
    )


@contextmanager
def pipeline(
    store: Store,
    *,
    streams: int = 2,
    compression: str | Compression = "zstd:1",
    on_failure: Callable[[], None] = lambda: None,
    shared: SharedPool | None = None,
) -> Iterator[Pipeline]:
    """A started pipeline; aborted at the end, after which none of its threads is left."""
    made = Pipeline(
        store,
        ID,
        streams=streams,
        compression=parse_compression(compression) if isinstance(compression, str) else compression,
        on_failure=on_failure,
        shared=shared,
    )
    made.start(0)
    try:
        yield made
    finally:
        made.abort()
        eventually(lambda: not threads(), f"the end of {threads()}")


def memory(way: Pipeline) -> BufferPool:
    """A pipeline's own memory."""
    assert isinstance(way.pool, BufferPool)
    return way.pool


def is_empty(way: Pipeline) -> bool:
    """Whether it has no buffer left."""
    return not memory(way)._free


def feed(target: Pipeline, chunks: Iterable[bytes]) -> None:
    """Submit chunks, as long as there are buffers."""
    for data in chunks:
        buffer = target.pool.acquire()
        buffer[: len(data)] = data
        target.submit(buffer, len(data))


def manifest(
    finished: tuple[list[Stream], list[Chunk]], images: list[Image] | None = None
) -> Manifest:
    """A manifest of what a pipeline has stored; one image of all chunks unless others are given."""
    streams, chunks = finished
    pieces = [Piece(number, 0, chunk.raw) for number, chunk in enumerate(chunks)]
    size = sum(chunk.raw for chunk in chunks)
    everything = [Image(name="pages-1.img", kind="criu", size=size, pieces=pieces)]
    return Manifest(
        checkpoint_id=ID,
        name=None,
        created_at="2025-01-02T03:04:05Z",
        agent_version="0",
        host=Host(name="here", kernel="6", architecture="x86_64", criu="4.1.1", runc=None),
        codec="zstd:1",
        streamed=True,
        fallback_reason=None,
        frozen_seconds=0,
        phases={},
        members=[
            Member(
                name="1",
                kind="process",
                target="1",
                pid=1,
                images=everything if images is None else images,
            )
        ],
        streams=streams,
        chunks=chunks,
    )


def read_images(store: Store, made: Manifest) -> dict[str, bytes]:
    """All images of a manifest, from the store, every chunk checked."""
    reader = ChunkReader(store, made)
    chunks = [bytes(reader.read(number)) for number in range(len(made.chunks))]
    return {
        image.name: b"".join(
            chunks[piece.chunk][piece.offset : piece.offset + piece.length]
            for piece in image.pieces
        )
        for member in made.members
        for image in member.images
    }
