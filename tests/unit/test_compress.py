"""Codecs: everything comes back, hostile payloads do not, and no claim costs memory."""

from __future__ import annotations

import random
import resource

import lz4.block
import pytest
import zstandard

from agent.compress import Compression, compressor, decompress, parse_compression
from agent.errors import InvalidArgument
from agent.frame import MAX_CHUNK, Codec

RANDOM = random.Random(1).randbytes(100_000)
TEXT = b"a page of text that repeats itself; " * 3000
ALL = ["none", "lz4", "zstd:-7", "zstd:1", "zstd:3", "zstd:22"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("none", Compression(Codec.NONE)),
        ("lz4", Compression(Codec.LZ4)),
        ("zstd", Compression(Codec.ZSTD, 1, yields=True)),
        ("zstd:1", Compression(Codec.ZSTD, 1)),
        ("zstd:0", Compression(Codec.ZSTD, 0)),
        ("zstd:-7", Compression(Codec.ZSTD, -7)),
        ("zstd:22", Compression(Codec.ZSTD, 22)),
    ],
)
def test_what_users_may_ask_for(text: str, expected: Compression) -> None:
    assert parse_compression(text) == expected
    assert parse_compression(str(expected)) == expected


@pytest.mark.parametrize(
    "text",
    [
        *("", "gzip", "ZSTD", "zstd:", "zstd:23", "zstd:-8", "zstd:fast", "zstd:1.5", "zstd:1:1"),
        *("none:", "none:1", "lz4:", "lz4:1", " zstd", "zstd:1e2", "zstd:" + "9" * 30),
    ],
)
def test_what_they_may_not(text: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse_compression(text)

    assert caught.value.argument == "compression"
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize("asked", ALL)
@pytest.mark.parametrize("raw", [TEXT, RANDOM, b"x", bytes(MAX_CHUNK)], ids=len)
def test_everything_comes_back(asked: str, raw: bytes) -> None:
    codec, payload = compressor(parse_compression(asked)).compress(memoryview(raw))

    assert len(payload) <= len(raw)
    assert bytes(decompress(codec, memoryview(bytes(payload)), len(raw))) == raw


@pytest.mark.parametrize("asked", ALL[1:])
def test_text_becomes_smaller_with_the_codec_asked_for(asked: str) -> None:
    wanted = parse_compression(asked)

    codec, payload = compressor(wanted).compress(TEXT)

    assert codec is wanted.codec
    assert len(payload) < len(TEXT) // 10


@pytest.mark.parametrize("asked", ALL)
def test_what_does_not_compress_is_passed_through_itself(asked: str) -> None:
    chunk = memoryview(RANDOM)

    codec, payload = compressor(parse_compression(asked)).compress(chunk)

    assert codec is Codec.NONE
    assert payload is chunk


def test_a_compressor_can_be_used_again() -> None:
    mine = compressor(parse_compression("zstd:3"))

    for raw in (TEXT, TEXT[:100], TEXT):
        codec, payload = mine.compress(raw)
        assert decompress(codec, payload, len(raw)) == raw


ZSTD = zstandard.ZstdCompressor().compress(TEXT)
LZ4 = lz4.block.compress(TEXT, store_size=False)
NO_SIZE = zstandard.ZstdCompressor(write_content_size=False).compress(TEXT)


@pytest.mark.parametrize(
    ("codec", "payload", "raw"),
    [
        pytest.param(Codec.NONE, TEXT, len(TEXT) + 1, id="none-short"),
        pytest.param(Codec.NONE, TEXT, len(TEXT) - 1, id="none-long"),
        pytest.param(Codec.ZSTD, ZSTD, len(TEXT) + 1, id="zstd-short"),
        pytest.param(Codec.ZSTD, ZSTD, len(TEXT) - 1, id="zstd-long"),
        pytest.param(Codec.ZSTD, ZSTD[:-1], len(TEXT), id="zstd-cut"),
        pytest.param(Codec.ZSTD, ZSTD[:4], len(TEXT), id="zstd-header-cut"),
        pytest.param(Codec.ZSTD, b"", len(TEXT), id="zstd-empty"),
        pytest.param(Codec.ZSTD, RANDOM, len(RANDOM), id="zstd-garbage"),
        pytest.param(Codec.ZSTD, NO_SIZE, len(TEXT), id="zstd-without-its-size"),
        pytest.param(Codec.ZSTD, LZ4, len(TEXT), id="lz4-as-zstd"),
        pytest.param(Codec.LZ4, LZ4, len(TEXT) + 1, id="lz4-short"),
        pytest.param(Codec.LZ4, LZ4, len(TEXT) - 1, id="lz4-long"),
        pytest.param(Codec.LZ4, LZ4[:-1], len(TEXT), id="lz4-cut"),
        pytest.param(Codec.LZ4, b"", len(TEXT), id="lz4-empty"),
        pytest.param(Codec.LZ4, RANDOM, len(RANDOM), id="lz4-garbage"),
        pytest.param(Codec.LZ4, ZSTD, len(TEXT), id="zstd-as-lz4"),
    ],
)
def test_damaged_payloads_are_refused(codec: Codec, payload: bytes, raw: int) -> None:
    with pytest.raises(ValueError, match=r"."):
        decompress(codec, payload, raw)


def bomb(codec: Codec, size: int) -> bytes:
    """A small payload that becomes ``size`` bytes."""
    if codec is Codec.LZ4:
        return bytes(lz4.block.compress(bytes(size), store_size=False))
    return zstandard.ZstdCompressor(level=19).compress(bytes(size))


@pytest.mark.parametrize("codec", [Codec.LZ4, Codec.ZSTD])
def test_a_bomb_is_refused_before_memory_is_taken_for_it(codec: Codec) -> None:
    payload = bomb(codec, 128 << 20)
    assert len(payload) < 1 << 20
    # No more than 32 MiB beyond what is mapped already: the 128 MiB could not be had.
    with open("/proc/self/statm") as file:
        mapped = int(file.read().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (mapped + (32 << 20), before[1]))
    try:
        with pytest.raises(ValueError, match=r"LZ4|Zstandard"):
            decompress(codec, payload, MAX_CHUNK)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def test_a_zstandard_frame_that_lies_about_its_size_is_refused() -> None:
    """The claim is right, the content is not: what comes out is bounded by the claim."""
    honest = zstandard.ZstdCompressor().compress(bytes(1 << 16))
    assert zstandard.frame_content_size(honest) == 1 << 16
    big = bytearray(zstandard.ZstdCompressor().compress(bytes(1 << 20)))
    # A 4-byte content size, as it has from 64 KiB + 256 bytes on, follows magic and descriptor.
    at = next(n for n in range(4, 8) if big[n : n + 4] == (1 << 20).to_bytes(4, "little"))
    big[at : at + 4] = (1 << 16).to_bytes(4, "little")

    with pytest.raises(ValueError, match="Zstandard"):
        decompress(Codec.ZSTD, bytes(big), 1 << 16)
