"""An archive's outermost form: plain, gzip or zstd, by its first bytes or by its name."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO, Final, Protocol, cast

import zstandard

from agent.archive.blocks import Source
from agent.archive.names import Form
from agent.frame import Data

# zstd -22 --long=27: more would let an archive decide how much memory it takes to look at it.
_MAX_WINDOW: Final = 1 << 27
_READ_SIZE: Final = 1 << 20


_SUFFIXES: Final = {
    ".gz": Form.GZIP, ".tgz": Form.GZIP, ".zst": Form.ZSTD, ".zstd": Form.ZSTD, ".tzst": Form.ZSTD,
}  # fmt: skip
_ENDINGS: Final = {Form.NONE: ".tar", Form.GZIP: ".tar.gz", Form.ZSTD: ".tar.zst"}
_MAGICS: Final = {
    b"\x1f\x8b": Form.GZIP, b"\x28\xb5\x2f\xfd": Form.ZSTD,
    b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz",
}  # fmt: skip


class Sink(Protocol):
    """Where bytes go."""

    def write(self, data: Data, /) -> object:
        """Take all of them."""


def form_of(name: Path) -> Form:
    """The form that a file's name asks for."""
    return _SUFFIXES.get(name.suffix, Form.NONE)


def ending(form: Form) -> str:
    """How the names of such archives end."""
    return _ENDINGS[form]


@contextmanager
def compressed(file: BinaryIO, form: Form) -> Iterator[Sink]:
    """Somewhere to write an archive to, that ends up in ``file`` in this form; whole at the end."""
    if form is Form.GZIP:
        # Level 1, and yet by far the slowest part: 12.7 s for 512 MiB that zstd takes 1.6 s for.
        with gzip.GzipFile(fileobj=file, mode="wb", compresslevel=1, mtime=0) as packed:
            yield packed
    elif form is Form.ZSTD:
        compressor = zstandard.ZstdCompressor(level=1, threads=-1)
        with compressor.stream_writer(file, closefd=False) as writer:
            yield writer
    else:
        yield file


def plain(source: Source) -> Source:
    """The bytes of an archive, whatever its form.

    Raises:
        ValueError: a form that is not known; reading, what is damaged.
    """
    ahead = _Ahead(source)
    start = ahead.peek(8)
    form = next((form for magic, form in _MAGICS.items() if start.startswith(magic)), Form.NONE)
    if form is Form.NONE:
        return ahead
    if form is Form.GZIP:
        return _Unpacked(gzip.GzipFile(fileobj=ahead, mode="rb"))
    if form is Form.ZSTD:
        decompressor = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW)
        reader = decompressor.stream_reader(
            cast("IO[bytes]", ahead), read_across_frames=True, read_size=_READ_SIZE
        )
        return _Unpacked(reader)
    raise ValueError(f"it is compressed with {form}, which is not known here: gzip and zstd are")


class _Ahead(io.RawIOBase):
    """A source whose first bytes were looked at."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._start = b""

    def peek(self, length: int) -> bytes:
        while len(self._start) < length and (data := self._source.read(length)):
            self._start += data
        return self._start

    def readable(self) -> bool:
        return True

    def read(self, length: int = -1, /) -> bytes:
        if self._start:
            data, self._start = self._start[:length], self._start[length:]
            return data
        return bytes(self._source.read(_READ_SIZE if length < 0 else length))


class _Unpacked:
    """A decompressor whose complaints are ValueErrors."""

    def __init__(self, file: Source) -> None:
        self._file = file

    def read(self, length: int, /) -> Data:
        try:
            return self._file.read(length)
        except (EOFError, gzip.BadGzipFile, zlib.error, zstandard.ZstdError) as error:
            raise ValueError(f"the compressed data is damaged: {error}") from error
