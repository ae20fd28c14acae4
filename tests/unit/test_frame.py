"""Headers and end marks: what is packed comes back, and nothing else passes."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable

import pytest

from agent.frame import (
    END_MARK_SIZE,
    FRAME_HEADER_SIZE,
    MAX_CHUNK,
    MAX_STREAMS,
    STREAM_HEADER_SIZE,
    Codec,
    EndMark,
    FrameHeader,
    check_stream_header,
    digest,
    pack_end_mark,
    pack_frame_header,
    pack_stream_header,
    unpack_end_mark,
    unpack_frame_header,
)

ID = "20250102-030405-0123456789"
HEADER = FrameHeader(Codec.ZSTD, chunk=7, raw=1000, stored=400, digest=digest(b"raw bytes"))
STREAM = pack_stream_header(ID, 3)
FRAME = pack_frame_header(HEADER)
END = pack_end_mark(EndMark(frames=5, length=12_345))


def check_stream(data: bytes) -> None:
    check_stream_header(data, ID, 3)


UNPACK: dict[bytes, Callable[[bytes], object]] = {
    STREAM: check_stream,
    FRAME: unpack_frame_header,
    END: unpack_end_mark,
}


def sealed(packed: bytes) -> bytes:
    """Bytes with the checksum that makes them a header, as a hostile writer would make them."""
    return packed + struct.pack("<I", zlib.crc32(packed))


def test_sizes_are_those_of_the_format() -> None:
    assert (STREAM_HEADER_SIZE, FRAME_HEADER_SIZE, END_MARK_SIZE) == (32, 40, 32)
    assert [len(data) for data in UNPACK] == [32, 40, 32]


def test_bytes_are_those_of_the_format() -> None:
    """Readers in other languages follow proto/FORMAT.md, not this code."""
    assert STREAM[:8] == b"CKPS\x01\x00\x03\x00"
    assert STREAM[8:24] == digest(ID.encode())
    assert FRAME[:8] == b"CKPF\x02\x00\x00\x00"
    assert struct.unpack("<III", FRAME[8:20]) == (7, 1000, 400)
    assert END[:4] == b"CKPE"
    assert struct.unpack("<IQ", END[4:16]) == (5, 12_345)
    for data in UNPACK:
        assert sealed(data[:-4]) == data


def test_digest_is_the_canonical_xxh3_128() -> None:
    assert digest(b"").hex() == "99aa06d3014798d86001c324468d497f"
    assert digest(memoryview(b"a")) == digest(bytearray(b"a")) == digest(b"a")


@pytest.mark.parametrize("codec", Codec)
@pytest.mark.parametrize(("raw", "stored"), [(1, 0), (1, 1), (MAX_CHUNK, MAX_CHUNK)])
def test_frame_headers_come_back(codec: Codec, raw: int, stored: int) -> None:
    header = FrameHeader(codec, 0xFFFF_FFFF, raw, stored, bytes(range(16)))

    assert unpack_frame_header(memoryview(pack_frame_header(header))) == header


@pytest.mark.parametrize("mark", [EndMark(0, 64), EndMark(0xFFFF_FFFF, (1 << 64) - 1)])
def test_end_marks_come_back(mark: EndMark) -> None:
    assert unpack_end_mark(pack_end_mark(mark)) == mark


@pytest.mark.parametrize("stream", [0, MAX_STREAMS - 1])
def test_stream_headers_pass_for_their_own_place(stream: int) -> None:
    check_stream_header(pack_stream_header(ID, stream), ID, stream)


@pytest.mark.parametrize(
    ("checkpoint_id", "stream"), [("another", 3), (ID, 2), (ID + "x", 3), ("", 3)]
)
def test_a_stream_from_elsewhere_is_refused(checkpoint_id: str, stream: int) -> None:
    with pytest.raises(ValueError, match="another checkpoint or place"):
        check_stream_header(STREAM, checkpoint_id, stream)


@pytest.mark.parametrize("data", UNPACK)
def test_every_flipped_bit_is_noticed(data: bytes) -> None:
    for position in range(len(data) * 8):
        damaged = bytearray(data)
        damaged[position // 8] ^= 1 << position % 8
        with pytest.raises(ValueError, match="checksum"):
            UNPACK[data](bytes(damaged))


@pytest.mark.parametrize("data", UNPACK)
def test_every_other_length_is_refused(data: bytes) -> None:
    for wrong in [data[:length] for length in range(len(data))] + [data + b"\0"]:
        with pytest.raises(ValueError, match="were expected"):
            UNPACK[data](wrong)


@pytest.mark.parametrize(
    ("packed", "reason"),
    [
        (b"CKPE" + FRAME[4:36], "no frame where one should start"),
        (bytes(36), "no frame where one should start"),
        (FRAME[:4] + b"\x03" + FRAME[5:36], "not a valid Codec"),
        (FRAME[:4] + b"\xff" + FRAME[5:36], "not a valid Codec"),
        (FRAME[:12] + struct.pack("<II", 0, 0) + FRAME[20:36], "impossible lengths 0 and 0"),
        (FRAME[:12] + struct.pack("<II", MAX_CHUNK + 1, 1) + FRAME[20:36], "impossible lengths"),
        (FRAME[:12] + struct.pack("<II", 0xFFFF_FFFF, 1) + FRAME[20:36], "impossible lengths"),
        (FRAME[:12] + struct.pack("<II", 10, 11) + FRAME[20:36], "impossible lengths 10 and 11"),
    ],
)
def test_frame_headers_with_a_right_checksum_but_hostile_values(packed: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        unpack_frame_header(sealed(packed))


@pytest.mark.parametrize(
    ("packed", "reason"),
    [
        (b"CKPF" + STREAM[4:28], "not a checkpoint stream"),
        (STREAM[:4] + b"\x02\x00" + STREAM[6:28], "stream of format 2"),
        (STREAM[:4] + b"\x00\x00" + STREAM[6:28], "stream of format 0"),
    ],
)
def test_stream_headers_with_a_right_checksum_but_hostile_values(
    packed: bytes, reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        check_stream(sealed(packed))


def test_what_is_no_end_mark_tells_of_a_cut() -> None:
    with pytest.raises(ValueError, match="cut off"):
        unpack_end_mark(sealed(b"CKPS" + END[4:28]))


@pytest.mark.parametrize("value", [-1, 1 << 32])
def test_what_does_not_fit_is_not_packed(value: int) -> None:
    with pytest.raises(struct.error):
        pack_end_mark(EndMark(value, 0))
