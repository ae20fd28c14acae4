"""What is in an archive that somebody else has written: checked, and taken into images as it comes.

Nothing of it is believed: files have the names that are known here or none, every file comes once,
and only plain files come at all.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from agent.archive import facts, names
from agent.archive.blocks import DIRECTORY, Entry, Source, TarReader
from agent.archive.compression import plain
from agent.archive.layer import Marked
from agent.capture.images import ImageSet, IncomingImage
from agent.capture.pipeline import Pipeline
from agent.frame import Data
from agent.manifest import (
    IMAGE_NAME,
    LABEL,
    ROOTFS_DIFF,
    VOLUME_TAR,
    Image,
    ImageKind,
    Volume,
)

# A bomb shall not be unpacked for days: more than twice what the largest machines have in memory.
MAX_BYTES: Final = 32 << 40
# A task has about ten images; a node has some 100,000 tasks at most. Their names have 20 bytes.
MAX_FILES: Final = 1_000_000
MAX_NAMES: Final = 64 << 20
# Engines write some 50 KiB; what the container deleted may be every file of its image.
MAX_JSON: Final = 16 << 20
MAX_DELETED: Final = 64 << 20
MAX_STATS: Final = 64 << 10
# Behind its end a tar is filled up to 10 KiB, by some to a MiB.
MAX_TAIL: Final = 16 << 20

_DESCRIPTORS: Final = "descriptors.json"
_NEEDED: Final = ("inventory.img", "pstree.img")


@dataclass
class Contents:
    """What an archive had; ``left_out`` are the files that nothing was done with."""

    config: facts.Json = field(default_factory=dict)
    spec: facts.Json = field(default_factory=dict)
    has_layer: bool = False
    stats: bytes | None = None
    images: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


class ArchiveReader:
    """One archive on its way into a pipeline."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._images = ImageSet(pipeline)
        # What the container shared.
        self.volumes: list[Volume] = []
        self._layer: tuple[Marked, IncomingImage] | None = None
        self._deleted: list[str] = []
        self._seen: set[bytes] = set()
        self._names = 0  # bytes of them
        self.contents = Contents()

    def read(self, source: Source) -> None:
        """Take all of it. Blocks.

        Raises:
            ValueError: it is no archive of a container, or a damaged one, or one that cannot be
                used; says why.
            Closed: the pipeline has failed.
        """
        bounded = self._bounded(source)
        reader = TarReader(bounded)
        for entry in reader:
            self._take(reader, entry)
        bounded.drain(MAX_TAIL)
        self._finish_layer()
        self._check_complete()
        self._images.flush()

    def images(self) -> list[Image]:
        """All of them, when the archive has been read."""
        return self._images.complete()

    def _take(self, reader: TarReader, entry: Entry) -> None:
        path = entry.path
        if path.split(b"/")[0] == names.PRE_CHECKPOINT.encode():
            raise ValueError("it is a pre-checkpoint: it has memory, but no processes")
        if entry.kind == DIRECTORY:
            return
        if not entry.is_file or entry.is_sparse:
            raise ValueError(
                f"{_shown(path)} is a link, a device or has holes: no engine writes so"
            )
        self._see(path)
        above, _, name = _shown(path).rpartition("/")
        if above == names.IMAGES:
            self._take_image(reader, name)
        elif above == names.VOLUMES and name.endswith(".tar"):
            self._take_volume(reader, name.removesuffix(".tar"), is_shm=False)
        elif above or not self._take_other(reader, name):
            self.contents.left_out.append(_shown(path))

    def _see(self, path: bytes) -> None:
        """Remember a name, as each may come only once."""
        if path in self._seen:
            raise ValueError(f"{_shown(path)} is there twice")
        if len(self._seen) >= MAX_FILES:
            raise ValueError(f"it has more than {MAX_FILES} files")
        self._names += len(path)
        if self._names > MAX_NAMES:
            raise ValueError(f"the names of its files have more than {MAX_NAMES} bytes")
        self._seen.add(path)

    def _take_other(self, reader: TarReader, name: str) -> bool:
        """Take what lies beside the images; False if nothing is to be done with it."""
        contents = self.contents
        if name == names.CONFIG_DUMP:
            contents.config = _object(name, reader.whole(MAX_JSON))
        elif name == names.SPEC_DUMP:
            data = reader.whole(MAX_JSON)
            contents.spec = _object(name, data)
            self._images.add("config.json", "bundle", data)
        elif name == names.STATS_DUMP:
            contents.stats = reader.whole(MAX_STATS)
            self._images.add(name, "stats", contents.stats)
        elif name == names.ROOTFS_DIFF:
            self._take_layer(reader)
        elif name == names.DELETED_FILES:
            self._deleted = _strings(name, reader.whole(MAX_DELETED))
        elif name == names.DEV_SHM:
            self._take_volume(reader, "shm", is_shm=True)
        else:
            return False
        return True

    def _take_image(self, reader: TarReader, name: str) -> None:
        if not re.fullmatch(IMAGE_NAME, name):
            raise ValueError(f"an image is called {name[:100]!r}")
        if name != _DESCRIPTORS and not name.endswith(".img"):
            self.contents.left_out.append(f"{names.IMAGES}/{name}")
            return
        kind: ImageKind = "runc" if name == _DESCRIPTORS else "criu"
        image = self._images.incoming(name, kind)
        self._write(image, reader.content())
        self._images.finished(image)
        self.contents.images.append(name)

    def _take_layer(self, reader: TarReader) -> None:
        image = self._images.incoming(ROOTFS_DIFF, "rootfs")
        # containerd's is compressed.
        source = self._bounded(reader)
        marked = Marked(TarReader(source))
        self._write(image, marked.pieces())
        source.drain(MAX_BYTES)
        # What is deleted may only be told behind it.
        self._layer = marked, image
        self.contents.has_layer = True

    def _finish_layer(self) -> None:
        if self._layer is None:
            if not self._deleted:
                return
            self._layer = Marked(TarReader(_NOTHING)), self._images.incoming(ROOTFS_DIFF, "rootfs")
            self.contents.has_layer = True
        marked, image = self._layer
        self._write(image, marked.marks(self._deleted))
        self._images.finished(image)

    def _take_volume(self, reader: TarReader, name: str, *, is_shm: bool) -> None:
        if not re.fullmatch(LABEL, name) or any(name == known.name for known in self.volumes):
            raise ValueError(f"a volume is called {name[:100]!r}, or two are")
        # A set of its own: it is no image of the member.
        images = ImageSet(self._pipeline)
        incoming = images.incoming(VOLUME_TAR, "volume")
        source = self._bounded(reader)
        marked = Marked(TarReader(source), is_layer=False)
        self._write(incoming, marked.pieces())
        source.drain(MAX_BYTES)
        self._write(incoming, marked.marks([]))
        images.finished(incoming)
        [image] = images.complete()
        self.volumes.append(Volume(name=name, medium="shm" if is_shm else "empty-dir", image=image))

    def _bounded(self, source: Source) -> _Bounded:
        return _Bounded(plain(source), self._pipeline.raise_failure)

    def _write(self, image: IncomingImage, pieces: Iterable[Data]) -> None:
        for data in pieces:
            image.write(data)

    def _check_complete(self) -> None:
        missing = [name for name in _NEEDED if name not in self.contents.images]
        missing = [f"{names.IMAGES}/{name}" for name in missing]
        for name in (names.CONFIG_DUMP, names.SPEC_DUMP):
            if name.encode() not in self._seen:
                missing.append(name)
        if missing:
            raise ValueError(f"it has no {' and no '.join(missing)}")


class _Bounded:
    """A source that ends in an error when there is no end to it, or when nobody wants it."""

    def __init__(self, source: Source, check: Callable[[], None]) -> None:
        """``check`` raises when nobody does: a little of what is compressed may be read for hours,
        and whatever is skipped goes nowhere else where that is noticed.
        """
        self._source, self._check = source, check
        self._left = MAX_BYTES

    def read(self, length: int, /) -> Data:
        self._check()
        data = self._source.read(length)
        self._left -= len(data)
        if self._left < 0:
            raise ValueError(f"it unpacks to more than {MAX_BYTES >> 40} TiB")
        return data

    def drain(self, most: int) -> None:
        """Read what follows the tar: checksums of its compression are at the very end.

        Raises:
            ValueError: that is more than ``most`` bytes, or damaged.
        """
        left = most
        while data := self.read(1 << 20):
            left -= len(data)
            if left < 0:
                raise ValueError(f"more than {most} bytes follow its end")


class _Nothing:
    def read(self, _length: int, /) -> bytes:
        return bytes(512)


_NOTHING: Final = _Nothing()


def _shown(path: bytes) -> str:
    """A path as text; what is no UTF-8 is no name that is known."""
    return path.decode(errors="backslashreplace")


def _object(name: str, data: bytes) -> facts.Json:
    try:
        return facts.parse_object(data)
    except ValueError as error:
        raise ValueError(f"{name} is {error}") from error


def _strings(name: str, data: bytes) -> list[str]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name} is no JSON: {error}") from error
    # Go writes an empty list as null.
    found = [] if found is None else found
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise ValueError(f"{name} is no list of paths")
    return found
