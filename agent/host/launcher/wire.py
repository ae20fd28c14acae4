"""Just enough protobuf for CRIU's RPC: varints and length-delimited fields."""

from __future__ import annotations

from _collections_abc import Iterator

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5

# criu_req_type and field numbers of images/rpc.proto, unchanged since CRIU 3.0.
DUMP, RESTORE, NOTIFY = 1, 2, 6
REQ_TYPE, REQ_OPTS, REQ_NOTIFY_SUCCESS = 1, 2, 3
RESP_TYPE, RESP_SUCCESS, RESP_DUMP, RESP_RESTORE, RESP_NOTIFY, RESP_ERRNO, RESP_ERRMSG = (
    1,
    2,
    3,
    4,
    5,
    7,
    9,
)


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Field number and value of everything in a message. Raises ValueError."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, kind = key >> 3, key & 7
        if kind == VARINT:
            value, at = _varint(data, at)
            yield number, value
            continue
        size = {FIXED64: 8, FIXED32: 4}.get(kind)
        if kind == BYTES:
            size, at = _varint(data, at)
        if size is None or at + size > len(data):
            raise ValueError("malformed message")
        yield number, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise ValueError("malformed number")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def number(field: int, value: int) -> bytes:
    """An integer, bool or enum field.

    Negative values as int32 are: ten bytes of two's complement.
    """
    return _encode(field << 3 | VARINT) + _encode(value & (1 << 64) - 1)


def text(field: int, value: bytes) -> bytes:
    """A string, bytes or message field."""
    return _encode(field << 3 | BYTES) + _encode(len(value)) + value


def _encode(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
