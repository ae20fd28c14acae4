"""Writable layers, from overlay's form to that of the archive and back. Streams of tar.

A layer says with marks what is no more there: a character device 0/0 for a file, an attribute for a
directory that hides what the image has below it. Podman and CRI-O unpack a tar without marks over
the image and then delete what a list names. containerd has an OCI layer, whose marks are files with
names that begin with `.wh.`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from agent.archive.blocks import (
    BLOCK,
    CHARACTER,
    DIRECTORY,
    END,
    LINK,
    XATTR,
    Entry,
    TarReader,
    new_entry,
    plain_path,
)
from agent.frame import Data

_MARK: Final = b".wh."
_OPAQUE_MARK: Final = b".wh..wh..opq"
_OPAQUE: Final = XATTR + b"trusted.overlay.opaque"
# Overlay's own notes are for the file system that they were made on. The second is what it uses
# where a user namespace owns the mount.
_NOTES: Final = (XATTR + b"trusted.overlay.", XATTR + b"user.overlay.")
# What is remembered of directories and marks: their paths, and some 150 bytes more for each. A base
# system has 10,000 of them; this is enough for two million.
_MOST_MEMORY: Final = 400 << 20
_EACH: Final = 150
# These stand for content that is in the image, under this name or another one.
_ELSEWHERE: Final = (b"redirect", b"metacopy")


class Unmarked:
    """A layer as others unpack it: without whiteouts, which :attr:`deleted` lists instead.

    As many bytes come out as went in, so that their number is known before the first one: what was
    left out is made up for behind the tar's end.
    """

    def __init__(self, reader: TarReader) -> None:
        self._reader = reader
        self._whiteouts: set[bytes] = set()
        # Absolute paths in the container.
        self.deleted: list[str] = []
        # Directories that hide what the image has below them. No list can say that: a directory on
        # it would be deleted with what is in it now. The attribute stays in the tar, so that
        # nothing is lost for those who know it.
        self.replaced: list[str] = []

    def pieces(self, size: int) -> Iterator[Data]:
        """The tar, ``size`` bytes of it.

        Raises:
            ValueError: it is no tar, or has what the archive cannot carry.
        """
        for entry in self._reader:
            if self._is_whiteout(entry):
                self.deleted.append(_absolute(entry.path))
                continue
            head = self._header(entry)
            size -= len(head) + entry.size + -entry.size % BLOCK
            yield head
            yield from self._reader.content()
            yield bytes(-entry.size % BLOCK)
        if size < 0:
            raise ValueError("the layer is longer than it was")
        while size:
            length = min(size, 1 << 20)
            yield bytes(length)
            size -= length

    def _is_whiteout(self, entry: Entry) -> bool:
        # Overlay makes all whiteouts links to one device, and a tar may tell of them as links.
        if entry.kind == LINK:
            found = plain_path(entry.link) in self._whiteouts
        else:
            found = entry.kind == CHARACTER and entry.device == (0, 0)
        if found:
            self._whiteouts.add(entry.path)
        return found

    def _header(self, entry: Entry) -> bytes:
        notes = {key for key in entry.records if key.startswith(_NOTES)}
        if not notes:
            return entry.raw
        for key in notes:
            if key.endswith(_ELSEWHERE):
                name = _shown(entry.path)
                raise ValueError(f"{name} is kept in the image, and only noted in the layer")
        opaque = {key for key in notes if key.endswith(b".opaque") and entry.records[key] == b"y"}
        if opaque:
            self.replaced.append(_shown(entry.path))
        dropped = notes - opaque
        kept = {key: value for key, value in entry.records.items() if key not in dropped}
        return entry.with_records(kept)


class Marked:
    """What others have unpacked over an image, as a layer again: whiteouts for what they delete."""

    def __init__(self, reader: TarReader, *, is_layer: bool = True) -> None:
        """Without ``is_layer`` it is a volume, in which no file's name means anything."""
        self._reader = reader
        self._is_layer = is_layer
        # With mode and owner, where the tar tells them.
        self._directories: dict[bytes, tuple[int, tuple[int, int]] | None] = {}
        self._deleted: list[bytes] = []
        self._replaced: list[bytes] = []
        self._memory = 0

    def pieces(self) -> Iterator[Data]:
        """The tar up to its end, which :meth:`marks` makes.

        Raises:
            ValueError: it is no tar, or names files outside the container.
        """
        for entry in self._reader:
            if self._is_mark(entry):
                continue
            self._note(entry)
            if entry.kind == LINK:
                plain_path(entry.link)
            yield entry.raw
            yield from self._reader.content()
            yield bytes(-entry.size % BLOCK)

    def marks(self, deleted: Iterable[str]) -> Iterator[bytes]:
        """What has to follow the tar: what ``deleted`` lists, and what it told itself; its end.

        What is listed and yet has files below it was replaced, and hides what the image has there.
        """
        paths = [plain_path(path.lstrip("/").encode(errors="surrogateescape")) for path in deleted]
        for path in dict.fromkeys(self._deleted + paths + self._replaced):
            if not path:
                raise ValueError("the container's root is listed as deleted")
            name = b"./" + path
            if path in self._directories or path in self._replaced:
                mode, owner = self._directories.get(path) or (0o755, (0, 0))
                opaque = {_OPAQUE: b"y"}
                yield new_entry(name + b"/", DIRECTORY, mode=mode, owner=owner, records=opaque)
            else:
                yield new_entry(name, CHARACTER, mode=0)
        yield END

    def _is_mark(self, entry: Entry) -> bool:
        above, _, name = entry.path.rpartition(b"/")
        if not (self._is_layer and entry.is_file and name.startswith(_MARK)):
            return False
        if name == _OPAQUE_MARK:
            self._replaced.append(above)
            self._remember(above)
            return True
        # `.wh...` is a mark for `..`, and `.wh.` for no file at all.
        path = plain_path((above + b"/" if above else b"") + name[len(_MARK) :])
        if path == above:
            raise ValueError(f"a file is called {entry.path[:100]!r}")
        self._deleted.append(path)
        self._remember(path)
        return True

    def _note(self, entry: Entry) -> None:
        """Remember directories: those that are there, and those that something is in."""
        path = entry.path
        if entry.kind == DIRECTORY:
            if path not in self._directories:
                self._remember(path)
            self._directories[path] = (entry.mode, entry.owner)
        above = path.rpartition(b"/")[0]
        while above and above not in self._directories:
            self._remember(above)
            self._directories[above] = None
            above = above.rpartition(b"/")[0]

    def _remember(self, path: bytes) -> None:
        self._memory += len(path) + _EACH
        if self._memory > _MOST_MEMORY:
            raise ValueError(f"its directories and marks take more than {_MOST_MEMORY} bytes")


def _shown(path: bytes) -> str:
    """A path in the container, for people."""
    return "/" + path.decode(errors="backslashreplace")


def _absolute(path: bytes) -> str:
    """A path as the list has it. ValueError: JSON cannot say it."""
    try:
        return "/" + path.decode()
    except UnicodeDecodeError:
        raise ValueError(f"the name {path[-100:]!r} is no UTF-8, and cannot be listed") from None
