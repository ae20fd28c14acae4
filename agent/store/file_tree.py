"""Directories and files below one directory, never through a symbolic link. Raises OSError only."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import TypeVar

# What the way to something that is not there can say: also a file or a link for a directory.
MISSING = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a FIFO must not hang us
_NOT_EMPTY = (errno.ENOTEMPTY, errno.EEXIST)
_ATTEMPTS = 20  # each is lost only when another thread removes the directory just made

_Result = TypeVar("_Result")


class Tree:
    """What a FileStore does below its root, each step relative to an open directory."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @contextlib.contextmanager
    def directory(self, parts: list[str], *, create: bool = False) -> Iterator[int]:
        """A descriptor of the directory ``parts`` below the root; of the root itself for none."""
        with contextlib.ExitStack() as stack:
            if create:
                _make_durable(self.root)
            # The root alone may be reached through links: where it lies is the user's to decide.
            fd = os.open(self.root, _DIRECTORY & ~os.O_NOFOLLOW)
            stack.callback(os.close, fd)
            for part in parts:
                if create:
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(part, 0o700, dir_fd=fd)
                fd = os.open(part, _DIRECTORY, dir_fd=fd)
                stack.callback(os.close, fd)
            yield fd

    def inside(self, parts: list[str], action: Callable[[int], _Result]) -> _Result:
        """Do ``action`` with a descriptor of the directory ``parts``, made where it is missing.

        Whoever removes the last object of a directory removes that too, at any moment: try again.
        """
        for _ in range(_ATTEMPTS):
            with contextlib.suppress(FileNotFoundError), self.directory(parts, create=True) as fd:
                try:
                    return action(fd)
                except OSError:  # ext4 says EPERM of a new file in a directory that is gone
                    if os.fstat(fd).st_nlink:
                        raise
        raise FileNotFoundError(errno.ENOENT, "the directory vanishes as soon as it is made")

    def open(self, parts: list[str]) -> int:
        """Open a regular file for reading. Raises an OSError of MISSING for anything else."""
        with self.directory(parts[:-1]) as parent:
            fd = os.open(parts[-1], _FILE, dir_fd=parent)
        if S_ISREG(os.fstat(fd).st_mode):
            return fd
        os.close(fd)
        raise FileNotFoundError(errno.ENOENT, "not a regular file")

    def sync(self, parts: list[str]) -> None:
        """Make the directory ``parts`` and all above it durable, whoever made them."""
        for depth in range(len(parts), -1, -1):
            with self.directory(parts[:depth]) as fd:
                os.fsync(fd)

    def unlink(self, parts: list[str]) -> None:
        """Remove a file durably, and the directories left empty by it. None there is no error."""
        with _suppressed(*MISSING, errno.EISDIR), self.directory(parts[:-1]) as fd:
            os.unlink(parts[-1], dir_fd=fd)
            os.fsync(fd)
        self.prune(parts[:-1])

    def remove(self, parts: list[str]) -> None:
        """Remove a directory with everything in it. None there is no error."""
        with _suppressed(*MISSING), self.directory(parts[:-1]) as fd:
            shutil.rmtree(parts[-1], dir_fd=fd)
            os.fsync(fd)
        self.prune(parts[:-1])

    def prune(self, parts: list[str]) -> None:
        """Remove the directory ``parts`` and those above it, as far as they are empty."""
        with _suppressed(*_NOT_EMPTY):
            for depth in range(len(parts), 0, -1):
                with _suppressed(*MISSING), self.directory(parts[: depth - 1]) as fd:
                    os.rmdir(parts[depth - 1], dir_fd=fd)

    def files(self, parts: list[str]) -> Iterator[tuple[str, int]]:
        """Path below the root and size of every visible regular file below ``parts``."""
        with _suppressed(*MISSING), self.directory(parts) as fd:
            for name in os.listdir(fd):
                if name.startswith("."):
                    continue
                with _suppressed(*MISSING):
                    status = os.stat(name, dir_fd=fd, follow_symlinks=False)
                    if S_ISDIR(status.st_mode):
                        yield from self.files([*parts, name])
                    elif S_ISREG(status.st_mode):
                        yield "/".join([*parts, name]), status.st_size


def exists(parent: int, name: str) -> bool:
    """Whether anything has that name in an open directory."""
    with contextlib.suppress(FileNotFoundError):
        os.stat(name, dir_fd=parent, follow_symlinks=False)
        return True
    return False


def _make_durable(path: Path) -> None:
    """Make a directory and its parents, each of them durable before the next."""
    if path.is_dir():
        return
    _make_durable(path.parent)
    with contextlib.suppress(FileExistsError):
        path.mkdir(0o700)
    fd = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextlib.contextmanager
def _suppressed(*numbers: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in numbers:
            raise
