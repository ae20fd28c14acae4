"""How a manifest's chunks lie in its streams. No I/O."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from agent.frame import END_MARK_SIZE, FRAME_HEADER_SIZE, STREAM_HEADER_SIZE
from agent.manifest import Manifest

# Bytes read in one go: two of the largest frames. Disks and object stores gain nothing beyond.
RANGE_SIZE: Final = 8 << 20


@dataclass(frozen=True, slots=True)
class Range:
    """Bytes ``offset`` to ``end`` of a stream: the frames of ``chunks``, one behind the other."""

    stream: int
    offset: int
    end: int
    chunks: tuple[int, ...]


def in_order(manifest: Manifest) -> list[list[int]]:
    """For each stream the numbers of its chunks as they lie in it."""
    order: list[list[int]] = [[] for _ in manifest.streams]
    for number, chunk in enumerate(manifest.chunks):
        order[chunk.stream].append(number)
    for numbers in order:
        numbers.sort(key=lambda number: manifest.chunks[number].offset)
    return order


def gaps(manifest: Manifest) -> Iterator[str]:
    """What is wrong where the frames do not fill their streams exactly, header to end mark."""
    for stream, numbers in zip(manifest.streams, in_order(manifest), strict=True):
        if len(numbers) != stream.frames:
            yield f"{stream.path}: {len(numbers)} chunks in {stream.frames} frames"
        at = STREAM_HEADER_SIZE
        for number in numbers:
            chunk = manifest.chunks[number]
            if chunk.offset != at:
                yield f"{stream.path}, chunk {number}: starts at {chunk.offset}, not at {at}"
            at = chunk.offset + FRAME_HEADER_SIZE + chunk.stored
        if at + END_MARK_SIZE != stream.bytes:
            yield f"{stream.path}: frames end at {at} of {stream.bytes} bytes"


def ranges(manifest: Manifest) -> Iterator[Range]:
    """All frames, in runs of at most RANGE_SIZE bytes, stream by stream."""
    for stream, numbers in enumerate(in_order(manifest)):
        run: list[int] = []
        offset = end = 0
        for number in numbers:
            chunk = manifest.chunks[number]
            chunk_end = chunk.offset + FRAME_HEADER_SIZE + chunk.stored
            if run and (chunk.offset != end or chunk_end - offset > RANGE_SIZE):
                yield Range(stream, offset, end, tuple(run))
                run = []
            if not run:
                offset = chunk.offset
            run.append(number)
            end = chunk_end
        if run:
            yield Range(stream, offset, end, tuple(run))
