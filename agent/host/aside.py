"""A directory's content, put aside while another is in its place.

It stays inside the directory, under a name of its own, so that it is found again by whoever has to
put it back: the directory may be a file system of its own, and who put it aside may have been
killed. What is in such a directory may be a stranger's, who may change it meanwhile: everything
goes through descriptors, and follows no link.

Also for programs that have to start quickly: standard library only.
"""

from __future__ import annotations

import os
import stat

# The one name that no content of a pod's volume may have at its top.
NAME = ".checkpoint-agent"

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def put(path: str | os.PathLike[str]) -> None:
    """Put everything in a directory aside; what was there already, of an earlier try, comes back
    first. Raises OSError.
    """
    put_back(path)
    directory = os.open(path, _DIRECTORY)
    try:
        names = os.listdir(directory)
        os.mkdir(NAME, 0o700, dir_fd=directory)
        aside = os.open(NAME, _DIRECTORY | os.O_NOFOLLOW, dir_fd=directory)
        try:
            # Its own are the directory's, which are about to be others.
            _copy_owner(directory, aside)
            _move(names, directory, aside)
        finally:
            os.close(aside)
    finally:
        os.close(directory)


def put_back(path: str | os.PathLike[str]) -> None:
    """Make a directory what it was; nothing happens where nothing was put aside. Raises OSError."""
    directory = os.open(path, _DIRECTORY)
    try:
        try:
            aside = os.open(NAME, _DIRECTORY | os.O_NOFOLLOW, dir_fd=directory)
        except FileNotFoundError:
            return
        try:
            _empty(directory)
            _move(os.listdir(aside), aside, directory)
            _copy_owner(aside, directory)
        finally:
            os.close(aside)
        os.rmdir(NAME, dir_fd=directory)
    finally:
        os.close(directory)


def forget(path: str | os.PathLike[str]) -> None:
    """Remove what was put aside."""
    # Imported here: it takes 15 ms, and not every program comes to this.
    import shutil

    directory = os.open(path, _DIRECTORY)
    try:
        shutil.rmtree(NAME, ignore_errors=True, dir_fd=directory)
    finally:
        os.close(directory)


def _empty(directory: int) -> None:
    import shutil

    for name in os.listdir(directory):
        if name == NAME:
            continue
        if stat.S_ISDIR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
            shutil.rmtree(name, dir_fd=directory)
        else:
            os.unlink(name, dir_fd=directory)


def _move(names: list[str], source: int, target: int) -> None:
    for name in names:
        os.rename(name, name, src_dir_fd=source, dst_dir_fd=target)


def _copy_owner(source: int, target: int) -> None:
    status = os.fstat(source)
    os.fchown(target, status.st_uid, status.st_gid)
    os.fchmod(target, stat.S_IMODE(status.st_mode))
