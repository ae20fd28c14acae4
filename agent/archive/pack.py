"""One container as an archive: what comes where, and from which image."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from agent.archive import facts, names
from agent.archive.blocks import BLOCK, DIRECTORY, END, TarReader, new_entry
from agent.archive.compression import Sink
from agent.archive.layer import Unmarked
from agent.chunks import ChunkReader, checkpoint_path, read_image
from agent.errors import CheckpointCorrupt, InvalidArgument
from agent.frame import Data
from agent.manifest import Image, Manifest, Member, Volume
from agent.serve.prefetch import Prefetch, is_streamed
from agent.store import Store

CONFIG: Final = "config.json"

# Called with the number of bytes just written; raising ends it.
Written = Callable[[int], None]


class MemberArchive:
    """A member on its way into a sink."""

    def __init__(
        self, store: Store, manifest: Manifest, member: Member, image: str | None, written: Written
    ) -> None:
        """``image`` is named instead of what the container's engine noted, when given."""
        self._store, self._manifest, self._member = store, manifest, member
        self._named, self._written = image, written
        # Directories that hide what the image has below them, which others are not told.
        self.replaced: list[str] = []

    def write(self, sink: Sink) -> None:
        """Write all of it. Blocks.

        Raises:
            InvalidArgument: its writable layer has what an archive cannot carry.
            CheckpointCorrupt, StoreFailed: of the checkpoint.
        """
        self._sink = sink
        config = self._member.image(CONFIG)
        assert config is not None  # noqa: S101 - looked at before
        try:
            spec = read_image(ChunkReader(self._store, self._manifest), config)
            container = facts.describe(self._member, spec, self._named)
        except ValueError as error:
            raise self._damaged(f"its config.json cannot be used: {error}") from error
        volumes = self._volumes(container)
        images = self._images()
        taken = [*images, *(volume.image for volume in volumes)]
        prefetch = Prefetch(self._store, self._manifest, taken)
        prefetch.start()
        try:
            self._describe(container, spec)
            for image in images:
                self._image(prefetch, image)
            for volume in volumes:
                self._stream(prefetch, _place(volume), volume.image)
        finally:
            prefetch.close()
        self._put(END)

    def _images(self) -> list[Image]:
        """In the order in which they are written: small ones that tell of the others first."""
        order = {"stats": 0, "criu": 1, "runc": 1, "rootfs": 2}
        images = [image for image in self._member.images if image.kind in order]
        return sorted(images, key=lambda image: order[image.kind])

    def _volumes(self, container: facts.Container) -> list[Volume]:
        """Those that the container has mounted, as far as can be told."""
        alone = len(self._manifest.members) == 1
        return [
            volume
            for volume in self._manifest.volumes
            if alone or container.has_mounted(_directory(volume))
        ]

    def _describe(self, container: facts.Container, spec: bytes) -> None:
        self._small(names.CONFIG_DUMP, facts.config_dump(self._manifest, container))
        self._small(names.SPEC_DUMP, spec)
        if status := facts.status_dump(container):
            self._small(names.STATUS_DUMP, status)
        # checkpointctl looks for the directory itself.
        self._put(new_entry(f"{names.IMAGES}/".encode(), DIRECTORY, mode=0o700))

    def _image(self, prefetch: Prefetch, image: Image) -> None:
        if image.kind == "rootfs":
            self._layer(prefetch, image)
        elif image.kind == "stats":
            self._stream(prefetch, names.STATS_DUMP, image)
        else:
            self._stream(prefetch, f"{names.IMAGES}/{image.name}", image)

    def _stream(self, prefetch: Prefetch, name: str, image: Image) -> None:
        self._put(new_entry(name.encode(), size=image.size))
        with _pieces(prefetch, image) as pieces:
            for data in pieces:
                self._put(data)
                self._written(len(data))
                del data
        self._put(bytes(-image.size % BLOCK))

    def _layer(self, prefetch: Prefetch, image: Image) -> None:
        self._put(new_entry(names.ROOTFS_DIFF.encode(), size=image.size))
        with _pieces(prefetch, image) as pieces:
            unmarked = Unmarked(TarReader(_Piecewise(pieces)))
            try:
                for data in unmarked.pieces(image.size):
                    self._put(data)
                    self._written(len(data))
                    del data
            except ValueError as error:
                reason = f"the writable layer of {self._member.name}: {error}"
                raise InvalidArgument("--format", reason) from error
        self._put(bytes(-image.size % BLOCK))
        if unmarked.deleted:
            self._small(names.DELETED_FILES, facts.deleted_files(unmarked.deleted))
        self.replaced = unmarked.replaced

    def _small(self, name: str, data: bytes) -> None:
        self._put(new_entry(name.encode(), size=len(data)) + data + bytes(-len(data) % BLOCK))

    def _put(self, data: Data) -> None:
        self._sink.write(data)

    def _damaged(self, reason: str) -> CheckpointCorrupt:
        path = checkpoint_path(self._store, self._manifest.checkpoint_id)
        return CheckpointCorrupt(path=path, reason=f"{self._member.name}: {reason}")


class _Piecewise:
    """Pieces of an image as a source, read without a copy."""

    def __init__(self, pieces: Iterator[Data]) -> None:
        self._pieces = pieces
        self._rest = memoryview(b"")

    def read(self, length: int, /) -> Data:
        if not self._rest:
            self._rest = memoryview(next(self._pieces, b""))
        data, self._rest = self._rest[:length], self._rest[length:]
        return data


@contextmanager
def _pieces(prefetch: Prefetch, image: Image) -> Iterator[Iterator[Data]]:
    """What an image consists of, in order."""
    if not is_streamed(image):
        yield iter([prefetch.whole(image)])
        return
    with prefetch.open(image) as pieces:
        yield pieces


def _place(volume: Volume) -> str:
    return names.DEV_SHM if volume.medium == "shm" else f"{names.VOLUMES}/{volume.name}.tar"


def _directory(volume: Volume) -> str:
    """The directory by which a volume is known in the path of a mount."""
    return "shm" if volume.medium == "shm" else volume.name
