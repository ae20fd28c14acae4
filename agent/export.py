"""Turns a checkpoint back into files: a directory that `criu restore` and `runc restore` accept.

Beside CRIU's images lie the tars: a member's ``rootfs-diff.tar`` among its own, volumes in
``volumes/NAME.tar``.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from agent.chunks import checkpoint_path, read_manifest
from agent.errors import AlreadyExists, CheckpointCorrupt, StoreFailed
from agent.host.shield import to_the_end
from agent.manifest import Image, Manifest, Member
from agent.report import Observer, Update, ignore, watched
from agent.serve.prefetch import Prefetch, is_streamed
from agent.store import Store

# Where volumes go.
VOLUMES = "volumes"

# Called with the number of bytes just written; raising ends the export.
Written = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class ExportResult:
    """What ``export`` returns and prints. ``directories`` hold one member each; sizes in bytes."""

    checkpoint_id: str
    path: str
    directory: str
    directories: list[str]
    images: int
    bytes_raw: int
    wall_seconds: float


class _Cancelled(Exception):
    """Whoever wanted the files does not want them any more."""


async def export(
    store: Store, checkpoint_id: str, directory: Path, *, observer: Observer = ignore
) -> ExportResult:
    """Write a checkpoint's images into ``directory``, for several members one directory in it each.

    All or nothing: files are written and fsynced beside ``directory`` and take its name at the end.
    They can be read by their owner only, as they hold whatever the processes had in memory.

    Raises:
        AlreadyExists: ``directory`` is there and not an empty directory.
        CheckpointNotFound, CheckpointCorrupt, FormatTooNew: of the checkpoint.
        StoreFailed: the store cannot be read, or the directory not be written.
    """
    begin = time.monotonic()
    directory = vacant(directory)
    manifest = await asyncio.to_thread(read_manifest, store, checkpoint_id)
    places = _places(checkpoint_path(store, checkpoint_id), manifest)
    export_ = _Export(store, manifest, directory, places)
    async with watched(observer, export_.progress):
        await export_.run()
    return ExportResult(
        checkpoint_id=checkpoint_id,
        path=checkpoint_path(store, checkpoint_id),
        directory=str(directory),
        directories=[str(directory / place) for place in places],
        images=len(list(manifest.images())),
        bytes_raw=manifest.bytes_raw,
        wall_seconds=round(time.monotonic() - begin, 6),
    )


def write_images(
    store: Store,
    manifest: Manifest,
    member: Member,
    directory: Path,
    *,
    written: Written = lambda _bytes: None,
) -> None:
    """Write all images of a member into an existing directory, where none of them may be yet.

    Not fsynced. Blocks; raises what reading does, and StoreFailed for the directory.
    """
    files = {image.name: image for image in member.images}
    _write_files(store, manifest, files, directory, written)


def _write_files(
    store: Store, manifest: Manifest, files: Mapping[str, Image], directory: Path, written: Written
) -> None:
    """Write images as the files named, in that order."""
    prefetch = Prefetch(store, manifest, files.values())
    prefetch.start()
    try:
        for name, image in files.items():
            _write_image(prefetch, image, directory / name, written)
    except OSError as error:
        raise unwritable(directory, error) from error
    finally:
        prefetch.close()


class _Export:
    """Writes a checkpoint under a temporary name, in a thread."""

    def __init__(
        self, store: Store, manifest: Manifest, directory: Path, places: Mapping[str, Member]
    ) -> None:
        self._store, self._manifest = store, manifest
        self._directory, self._places = directory, places
        self._bytes = 0
        self._cancelled = False

    def progress(self) -> Update:
        total, stored = self._manifest.bytes_raw, self._manifest.bytes_stored
        return Update("export", self._bytes, stored, total)

    async def run(self) -> None:
        await write_in_thread(self._write, self._give_up)

    def _give_up(self) -> None:
        self._cancelled = True

    def _write(self) -> None:
        with temporary_sibling(self._directory) as temporary:
            for place, member in self._places.items():
                (temporary / place).mkdir(mode=0o700, exist_ok=True)
                write_images(
                    self._store, self._manifest, member, temporary / place, written=self._written
                )
            if self._manifest.volumes:
                self._write_volumes(temporary / VOLUMES)
            sync_tree(temporary)
            self._written(0)
            move_into_place(temporary, self._directory)

    def _write_volumes(self, directory: Path) -> None:
        directory.mkdir(mode=0o700)
        files = {f"{volume.name}.tar": volume.image for volume in self._manifest.volumes}
        _write_files(self._store, self._manifest, files, directory, self._written)

    def _written(self, length: int) -> None:
        self._bytes += length
        if self._cancelled:
            raise _Cancelled


def _places(path: str, manifest: Manifest) -> dict[str, Member]:
    """The directory of each member: one member needs none of its own."""
    if len(manifest.members) == 1:
        return {".": manifest.members[0]}
    if manifest.volumes and any(member.name == VOLUMES for member in manifest.members):
        raise CheckpointCorrupt(path=path, reason=f"a member is called {VOLUMES}, and has some")
    return {member.name: member for member in manifest.members}


async def write_in_thread(write: Callable[[], None], give_up: Callable[[], None]) -> None:
    """Run ``write`` in a thread, which has ended when this returns. Raises what it does.

    Args:
        give_up: called when nobody wants it any more; has to make it end soon.
    """
    work = asyncio.ensure_future(asyncio.to_thread(write))
    try:
        await asyncio.shield(work)
    finally:
        give_up()
        await to_the_end(asyncio.wait([work]))
        work.exception()  # looked at, so that asyncio does not report it as lost


def vacant(directory: Path) -> Path:
    """The absolute path of a directory that is empty or not there."""
    try:
        is_vacant = not os.listdir(directory)
    except FileNotFoundError:
        is_vacant = True
    except OSError as error:
        if not (isinstance(error, NotADirectoryError) and os.path.lexists(directory)):
            raise unwritable(directory, error) from error
        is_vacant = False
    if not is_vacant:
        raise AlreadyExists(what="directory", name=str(directory))
    return directory.absolute()


@contextlib.contextmanager
def temporary_sibling(directory: Path) -> Iterator[Path]:
    """A new directory beside ``directory``, for its owner only; gone afterwards unless renamed.

    Directories above that were made for it go as well, unless there is something in them then.
    """
    with contextlib.ExitStack() as undo:
        try:
            for above in reversed(directory.parents):
                if not above.exists():
                    undo.callback(_remove_empty, above)
            directory.parent.mkdir(parents=True, exist_ok=True)
            name = tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent)
            undo.callback(shutil.rmtree, name, ignore_errors=True)
            yield Path(name)
        except OSError as error:
            raise unwritable(directory, error) from error


def _remove_empty(directory: Path) -> None:
    with contextlib.suppress(OSError):
        directory.rmdir()


def move_into_place(temporary: Path, directory: Path) -> None:
    """Give a directory its name, durably. Raises AlreadyExists or StoreFailed."""
    try:
        temporary.rename(directory)
    except (FileExistsError, NotADirectoryError) as error:
        raise AlreadyExists(what="directory", name=str(directory)) from error
    except OSError as error:
        # ENOTEMPTY has no class of its own.
        vacant(directory)
        raise unwritable(directory, error) from error
    sync(directory.parent)


def _write_image(prefetch: Prefetch, image: Image, path: Path, written: Written) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb", buffering=0) as file:
        if not is_streamed(image):
            # One write may take less than all of it, on a disk that is nearly full.
            _write_all(file.fileno(), memoryview(prefetch.whole(image)))
            written(image.size)
            return
        with prefetch.open(image) as pieces:
            for data in pieces:
                _write_all(file.fileno(), data)
                written(len(data))
                del data


def _write_all(descriptor: int, data: memoryview) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def sync_tree(directory: Path) -> None:
    """Make everything in a directory durable. Raises OSError."""
    for path in directory.rglob("*"):
        sync(path)
    sync(directory)


def sync(path: Path) -> None:
    """Make one file or directory durable. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def unwritable(directory: Path, error: OSError) -> StoreFailed:
    """What to raise when a place cannot be written to."""
    return StoreFailed(operation="write", url=str(directory), reason=error.strerror or str(error))
