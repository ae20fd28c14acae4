"""Chunks in, payloads out, and back. One compressor per thread: instances are not thread-safe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import lz4.block
import zstandard

from agent.errors import InvalidArgument
from agent.frame import Codec, Data

# Level 1 by default: in the freeze, time is what counts. Text at 0.30 GB/s a core against 0.19 at
# level 3, for 32 % instead of 30 % of its size; what does not compress passes at 5 GB/s either way.
DEFAULT_LEVEL = 1
MIN_LEVEL, MAX_LEVEL = -7, 22

# Up to this level somebody wants speed: a chunk of which a sample (64 KiB, 3 % of 2 MiB) does not
# shrink by a tenth is stored as it is. Model weights are like that: zstd:1 makes 93 % of them at
# 0.6 to 0.9 GB/s a core, while the tasks are frozen.
PROBED_LEVELS = 3
PROBE_SLICES, PROBE_SLICE = 8, 8 << 10
WORTHWHILE = 0.9


@dataclass(frozen=True, slots=True)
class Compression:
    """What a user asked for: ``none``, ``lz4``, ``zstd`` or ``zstd:LEVEL``.

    ``yields``: a chunk that would keep the tasks frozen for longer may be stored as it is.
    """

    codec: Codec
    level: int = 0
    yields: bool = False

    def __str__(self) -> str:
        name = self.codec.name.lower()
        return f"{name}:{self.level}" if self.codec is Codec.ZSTD and not self.yields else name


def parse_compression(text: str) -> Compression:
    """Read ``none``, ``lz4``, ``zstd`` or ``zstd:LEVEL`` (-7 to 22).

    ``zstd`` alone is level 1 as far as that keeps up with CRIU; with a level it always compresses.

    Raises:
        InvalidArgument: for anything else.
    """
    name, colon, level = text.partition(":")
    if name in ("none", "lz4") and not colon:
        return Compression(Codec[name.upper()])
    if name == "zstd":
        try:
            number = int(level) if colon else DEFAULT_LEVEL
        except ValueError:
            number = MAX_LEVEL + 1
        if MIN_LEVEL <= number <= MAX_LEVEL:
            return Compression(Codec.ZSTD, number, yields=not colon)
    choices = f"none, lz4, zstd or zstd:LEVEL with a level from {MIN_LEVEL} to {MAX_LEVEL}"
    raise InvalidArgument(argument="compression", reason=f"{text!r} is not {choices}")


class Compressor(Protocol):
    """One thread's way to turn chunks into payloads."""

    def compress(self, chunk: Data) -> tuple[Codec, Data]:
        """The codec actually used and the payload; ``chunk`` itself when nothing was gained."""


class _Plain:
    def compress(self, chunk: Data) -> tuple[Codec, Data]:
        return Codec.NONE, chunk


class _Lz4:
    def compress(self, chunk: Data) -> tuple[Codec, Data]:
        payload: bytes = lz4.block.compress(chunk, store_size=False)
        return (Codec.LZ4, payload) if len(payload) < len(chunk) else (Codec.NONE, chunk)


class _Zstd:
    def __init__(self, level: int) -> None:
        # Frames carry their own digest of the raw bytes: zstd's checksum would be a second one.
        self._compressor = zstandard.ZstdCompressor(level=level, write_checksum=False)
        self._probes = level <= PROBED_LEVELS

    def compress(self, chunk: Data) -> tuple[Codec, Data]:
        if self._probes and not self._worthwhile(chunk):
            return Codec.NONE, chunk
        payload = self._compressor.compress(chunk)
        return (Codec.ZSTD, payload) if len(payload) < len(chunk) else (Codec.NONE, chunk)

    def _worthwhile(self, chunk: Data) -> bool:
        """Whether a sample of the chunk becomes small enough to be worth the time for all of it."""
        step = len(chunk) // PROBE_SLICES
        if step < 2 * PROBE_SLICE:
            return True
        starts = range(0, step * PROBE_SLICES, step)
        sample = b"".join(chunk[start : start + PROBE_SLICE] for start in starts)
        return len(self._compressor.compress(sample)) < WORTHWHILE * len(sample)


def compressor(compression: Compression) -> Compressor:
    """A new compressor, for the calling thread alone."""
    if compression.codec is Codec.ZSTD:
        return _Zstd(compression.level)
    return _Lz4() if compression.codec is Codec.LZ4 else _Plain()


def decompress(codec: Codec, payload: Data, raw: int) -> Data:
    """The ``raw`` bytes that were compressed into ``payload``.

    Raises:
        ValueError: the payload is damaged, or would give another length.
    """
    if codec is Codec.NONE:
        data: Data = payload
    elif codec is Codec.LZ4:
        try:
            data = lz4.block.decompress(payload, uncompressed_size=raw)
        except lz4.block.LZ4BlockError as error:
            raise ValueError(f"LZ4: {error}") from error
    else:
        data = _unzstd(payload, raw)
    if len(data) != raw:
        raise ValueError(f"{len(data)} bytes came out where {raw} went in")
    return data


def _unzstd(payload: Data, raw: int) -> bytes:
    try:
        # The frame's own claim is checked before memory is taken for it.
        if zstandard.frame_content_size(payload) != raw:
            raise ValueError("the Zstandard frame claims another length")
        return zstandard.ZstdDecompressor().decompress(payload)
    except zstandard.ZstdError as error:
        raise ValueError(f"Zstandard: {error}") from error
