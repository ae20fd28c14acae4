"""Tar, block by block: what :mod:`tarfile` does not offer, or believes too much.

Entries keep the bytes that they came in, so that they can be passed on unchanged, holes and
attributes included; and everything is bounded, as a tar may be anybody's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from agent.frame import Data

BLOCK: Final = 512
END: Final = bytes(2 * BLOCK)

# Names of 4 KiB and attributes of 64 KiB are the most that Linux has; one file has a few of them.
MAX_EXTENDED: Final = 4 << 20
MAX_NAME: Final = 4096
READ_SIZE: Final = 1 << 20

FILE, OLD_FILE, CONTIGUOUS, LINK = b"0", b"\0", b"7", b"1"
CHARACTER, DIRECTORY = b"3", b"5"
_PAX, _LONG_NAME, _LONG_LINK = b"x", b"L", b"K"
_GLOBAL = b"g"
# Links, devices, directories and pipes: what has no content, whatever its size says.
_EMPTY: Final = (b"1", b"2", b"3", b"4", b"5", b"6")

XATTR: Final = b"SCHILY.xattr."


class Source(Protocol):
    """Where bytes come from."""

    def read(self, length: int, /) -> Data:
        """At most ``length`` of them; none at the end."""


@dataclass(slots=True)
class Entry:
    """One file: ``raw`` are all its header blocks, ``size`` bytes of content follow them.

    ``records`` are its pax records: names and sizes that do not fit, attributes.
    """

    name: bytes
    kind: bytes
    size: int
    mode: int
    owner: tuple[int, int]
    device: tuple[int, int]
    link: bytes
    header: bytes
    raw: bytes
    records: dict[bytes, bytes] = field(default_factory=dict)

    @property
    def path(self) -> bytes:
        """Its name without what means nothing: ``a/b`` for ``./a/b/``, ``""`` for ``./``."""
        return plain_path(self.name)

    @property
    def is_file(self) -> bool:
        """Whether it is a regular file."""
        return self.kind in (FILE, OLD_FILE, CONTIGUOUS)

    @property
    def is_sparse(self) -> bool:
        """Whether its content is a list of holes first."""
        return any(key.startswith(b"GNU.sparse") for key in self.records)

    def with_records(self, records: Mapping[bytes, bytes]) -> bytes:
        """Its header blocks with other records."""
        return (pax_header(records) if records else b"") + self.header


class TarReader:
    """The entries of a tar, and their content. Raises ValueError for what is no tar."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._left = 0  # of the current entry's content, with what fills its last block
        self._padding = 0

    def __iter__(self) -> Iterator[Entry]:
        while (entry := self._next()) is not None:
            yield entry

    def content(self) -> Iterator[Data]:
        """What the current entry contains; what nobody asks for is skipped."""
        while data := self.read(READ_SIZE):
            yield data

    def read(self, length: int, /) -> Data:
        """At most ``length`` bytes of the current entry's content: a tar in a tar is a source."""
        return self._some(min(length, self._left - self._padding)) if self._is_inside else b""

    def whole(self, limit: int) -> bytes:
        """The content of the current entry. ValueError if it has more than ``limit`` bytes."""
        if self._left - self._padding > limit:
            raise ValueError(f"a file has more than {limit} bytes")
        return b"".join(self.content())

    @property
    def _is_inside(self) -> bool:
        return self._left > self._padding

    def _next(self) -> Entry | None:
        while self._left:
            self._some(min(READ_SIZE, self._left))
        raw = bytearray()
        records: dict[bytes, bytes] = {}
        while True:
            header = self._exactly(BLOCK)
            if not any(header):
                if raw:
                    raise ValueError("it ends after the header of a file")
                return None
            _check(header)
            kind, size = header[156:157], _number(header[124:136])
            raw += header
            if kind not in (_PAX, _LONG_NAME, _LONG_LINK):
                break
            if len(raw) + size > MAX_EXTENDED:
                raise ValueError(f"names and attributes of more than {MAX_EXTENDED} bytes")
            data = self._exactly(size + -size % BLOCK)
            raw += data
            records |= _extended(kind, data[:size])
        return self._entry(header, bytes(raw), records)

    def _entry(self, header: bytes, raw: bytes, records: dict[bytes, bytes]) -> Entry:
        kind = header[156:157]
        if kind == _GLOBAL:
            raise ValueError("it has a header that is for all files")
        said = records.get(b"size")
        size = _decimal(said) if said else _number(header[124:136])
        if kind in _EMPTY:
            size = 0
        elif kind not in (FILE, OLD_FILE, CONTIGUOUS):
            # GNU's own: parts of files, holes in a form that has headers of its own.
            raise ValueError(f"it has an entry of the kind {kind!r}")
        self._padding = -size % BLOCK
        self._left = size + self._padding
        is_ustar = header[257:263] == b"ustar\0"
        prefix = _text(header[345:500]) if is_ustar else b""
        name = (prefix + b"/" if prefix else b"") + _text(header[:100])
        return Entry(
            name=records.get(b"GNU.sparse.name", records.get(b"path", name)),
            kind=kind,
            size=size,
            mode=_number(header[100:108]),
            owner=(_number(header[108:116]), _number(header[116:124])),
            device=(_number(header[329:337]), _number(header[337:345])),
            link=records.get(b"linkpath", _text(header[157:257])),
            header=header,
            raw=raw,
            records=records,
        )

    def _exactly(self, length: int) -> bytes:
        parts, missing = [], length
        while missing:
            part = self._source.read(missing)
            if not part:
                raise ValueError("it is cut off")
            parts.append(bytes(part))
            missing -= len(part)
        return b"".join(parts)

    def _some(self, length: int) -> Data:
        data = self._source.read(length)
        if not data:
            raise ValueError("it is cut off")
        self._left -= len(data)
        return data


def plain_path(name: bytes) -> bytes:
    """A name without ``.`` and slashes at its ends.

    Raises:
        ValueError: it leads out of where it is, or is longer than Linux takes.
    """
    # Before it is taken apart: who remembers the directories above it has them all to keep.
    if len(name) > MAX_NAME:
        raise ValueError(f"the name of a file has more than {MAX_NAME} bytes")
    parts = [part for part in name.split(b"/") if part not in (b"", b".")]
    if name.startswith(b"/") or b".." in parts or b"\0" in name:
        raise ValueError(f"a file is called {name[:100]!r}")
    return b"/".join(parts)


def pax_header(records: Mapping[bytes, bytes]) -> bytes:
    """Blocks that give the next header these records."""
    data = b"".join(_record(key, value) for key, value in records.items())
    header = _block(b"./PaxHeaders/x", _PAX, len(data), 0o600, (0, 0))
    return header + data + bytes(-len(data) % BLOCK)


def new_entry(
    name: bytes,
    kind: bytes = FILE,
    *,
    size: int = 0,
    mode: int = 0o600,
    owner: tuple[int, int] = (0, 0),
    records: Mapping[bytes, bytes] | None = None,
) -> bytes:
    """The header blocks of a file; a name or number that is too long for a header goes before."""
    more = dict(records or {})
    if len(name) > 100 or not name.isascii():
        more[b"path"] = name
    for key, number, digits in ((b"size", size, 11), (b"uid", owner[0], 7), (b"gid", owner[1], 7)):
        if number >= 8**digits:
            more[key] = b"%d" % number
    return (pax_header(more) if more else b"") + _block(name, kind, size, mode, owner)


def _block(name: bytes, kind: bytes, size: int, mode: int, owner: tuple[int, int]) -> bytes:
    header = bytearray(BLOCK)
    header[: min(len(name), 100)] = name[:100]
    fields = [(100, 7, mode), (108, 7, owner[0]), (116, 7, owner[1]), (124, 11, size)]
    # Time, and a device's numbers.
    fields += [(136, 11, 0), (329, 7, 0), (337, 7, 0)]
    for at, digits, number in fields:
        # What does not fit is in a record, which counts for more.
        header[at : at + digits] = b"%0*o" % (digits, number if number < 8**digits else 0)
    header[156:157] = kind
    header[257:265] = b"ustar\x0000"
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def _record(key: bytes, value: bytes) -> bytes:
    """``LENGTH KEY=VALUE\\n``, where the length counts its own digits."""
    bare = len(key) + len(value) + 3
    length = bare + len(str(bare))
    length = bare + len(str(length))
    return b"%d %s=%s\n" % (length, key, value)


def _extended(kind: bytes, data: bytes) -> dict[bytes, bytes]:
    if kind == _LONG_NAME:
        return {b"path": _text(data)}
    if kind == _LONG_LINK:
        return {b"linkpath": _text(data)}
    records = {}
    at = 0
    while at < len(data):
        key, value, at = _record_at(data, at)
        records[key] = value
    return records


def _record_at(data: bytes, at: int) -> tuple[bytes, bytes, int]:
    """Key and value of a record, and where the next one begins.

    By index: with a copy of the rest for each of them, 4 MiB of tiny ones took two minutes.
    """
    space = data.find(b" ", at, at + 10)
    if space > at and data[at:space].isdigit():
        end = at + int(data[at:space])
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if equals and end <= len(data) and data[end - 1 : end] == b"\n":
            return key, value, end
    raise ValueError("the attributes of a file are damaged")


def _check(header: bytes) -> None:
    found = sum(header) - sum(header[148:156]) + 8 * 32
    if _number(header[148:156]) != found:
        raise ValueError("it is no tar, or damaged")


def _text(data: bytes) -> bytes:
    return data.partition(b"\0")[0]


def _decimal(digits: bytes) -> int:
    """A number in a record."""
    if not digits.isdigit() or len(digits) > 20:
        raise ValueError("it is no tar, or damaged: a number is none")
    return int(digits)


def _number(data: bytes) -> int:
    if data[0] & 0x80:  # GNU, for what has too many digits
        if data[0] != 0x80:
            raise ValueError("it is no tar, or damaged: a number is negative")
        return int.from_bytes(data[1:], "big")
    digits = data.strip(b" \0") or b"0"
    if not digits.isdigit():
        raise ValueError("it is no tar, or damaged: a number is none")
    return int(digits, 8)
