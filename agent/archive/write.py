"""Export: a checkpoint's members as archives, each written as it is read from the store."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from agent.archive.compression import compressed, ending, form_of
from agent.archive.names import Form
from agent.archive.pack import CONFIG, MemberArchive
from agent.chunks import checkpoint_path, read_manifest
from agent.errors import AlreadyExists, InvalidArgument
from agent.export import (
    move_into_place,
    sync,
    sync_tree,
    temporary_sibling,
    unwritable,
    vacant,
    write_in_thread,
)
from agent.manifest import Manifest, Member
from agent.report import Observer, Update, ignore, watched
from agent.store import Store

_BUFFER: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class ArchiveResult:
    """What ``export --format oci`` returns and prints. Sizes in bytes.

    ``replaced`` are directories that hide what the image has below them, as ``MEMBER:/path``: the
    archive cannot say that, so after an import elsewhere those files are there again.
    """

    checkpoint_id: str
    path: str
    archives: list[str]
    members: list[str]
    bytes_raw: int
    bytes_written: int
    compression: str
    wall_seconds: float
    replaced: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class ArchiveRequest:
    """What to write, and how.

    Args:
        target: a new file; for several members a new directory, one archive each in it.
        member: only this one.
        form: how to compress; by the name of ``target`` unless given.
        image: the image that others are to find the container's files in; what its engine noted,
            unless given.
    """

    store: Store
    checkpoint_id: str
    target: Path
    member: str | None = None
    form: Form | None = None
    image: str | None = None


async def export_archives(request: ArchiveRequest, *, observer: Observer = ignore) -> ArchiveResult:
    """Write archives that CRI-O, containerd, Podman and checkpointctl take.

    All or nothing: files are written and fsynced beside the target and take its name at the end.
    They can be read by their owner only, as they hold whatever the processes had in memory.

    Raises:
        InvalidArgument: no such member, or one that cannot be put into an archive.
        AlreadyExists: the target is there.
        CheckpointNotFound, CheckpointCorrupt, FormatTooNew: of the checkpoint.
        StoreFailed: the store cannot be read, or the target not be written.
    """
    begin = time.monotonic()
    manifest = await asyncio.to_thread(read_manifest, request.store, request.checkpoint_id)
    members = _wanted(request, manifest)
    work = _Work(request, manifest, members)
    async with watched(observer, work.progress):
        await work.run()
    return ArchiveResult(
        checkpoint_id=request.checkpoint_id,
        path=checkpoint_path(request.store, request.checkpoint_id),
        archives=[str(path) for path in work.archives],
        members=[member.name for member in members],
        bytes_raw=work.bytes_raw,
        bytes_written=work.bytes_written,
        compression=work.form.value,
        wall_seconds=round(time.monotonic() - begin, 6),
        replaced=work.replaced,
    )


def _wanted(request: ArchiveRequest, manifest: Manifest) -> list[Member]:
    members = manifest.members
    if request.member is not None:
        members = [member for member in members if member.name == request.member]
        if not members:
            known = ", ".join(member.name for member in manifest.members)
            raise InvalidArgument("--member", f"{request.member!r} is none of {known}")
    for member in members:
        if member.kind != "runc" or member.image(CONFIG) is None:
            raise InvalidArgument("--format", f"{member.name} is no container: use --format files")
        if member.image("inventory.img") is None:
            reason = f"the checkpoint has no processes of {member.name}, and an archive needs them"
            raise InvalidArgument("--format", reason)
    return members


class _Cancelled(Exception):
    """Whoever wanted the archives does not want them any more."""


class _Work:
    """Writes archives under a temporary name, in a thread."""

    def __init__(self, request: ArchiveRequest, manifest: Manifest, members: list[Member]) -> None:
        self._request, self._manifest, self._members = request, manifest, members
        # One that was asked for by name is a file, as the only one is.
        self._single = len(members) == 1
        self._target = request.target.absolute()
        self.form = request.form or (form_of(self._target) if self._single else Form.NONE)
        self.archives: list[Path] = []
        self.replaced: list[str] = []
        self.bytes_raw = 0
        self.bytes_written = 0
        self._total = sum(image.size for member in members for image in member.images)
        self._cancelled = False

    def progress(self) -> Update:
        return Update("export", self.bytes_raw, self.bytes_written, self._total)

    async def run(self) -> None:
        await write_in_thread(self._write, self._give_up)

    def _give_up(self) -> None:
        self._cancelled = True

    def _write(self) -> None:
        self._check_vacant()
        with temporary_sibling(self._target) as temporary:
            for member in self._members:
                name = "archive" if self._single else member.name
                path = temporary / f"{name}{ending(self.form)}"
                self._write_archive(member, path)
                self.bytes_written += path.stat().st_size
            sync_tree(temporary)
            self.count(0)
            self._publish(temporary)

    def _write_archive(self, member: Member, path: Path) -> None:
        request = self._request
        archive = MemberArchive(request.store, self._manifest, member, request.image, self.count)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb", buffering=_BUFFER) as file, compressed(file, self.form) as sink:
            archive.write(sink)
        self.replaced += [f"{member.name}:{path}" for path in archive.replaced]

    def _check_vacant(self) -> None:
        if not self._single:
            vacant(self._target)
            return
        try:
            self._target.lstat()
        except FileNotFoundError:
            return
        except OSError as error:
            raise unwritable(self._target, error) from error
        raise AlreadyExists(what="file", name=str(self._target))

    def _publish(self, temporary: Path) -> None:
        written = sorted(temporary.iterdir())
        if not self._single:
            move_into_place(temporary, self._target)
            self.archives = [self._target / path.name for path in written]
            return
        try:
            # Unlike a rename, a link never takes the place of another file.
            os.link(written[0], self._target)
        except FileExistsError as error:
            raise AlreadyExists(what="file", name=str(self._target)) from error
        except OSError as error:
            raise unwritable(self._target, error) from error
        sync(self._target.parent)
        self.archives = [self._target]

    def count(self, length: int) -> None:
        """So many more bytes of images are written. Ends the thread when nobody wants them."""
        self.bytes_raw += length
        if self._cancelled:
            raise _Cancelled
