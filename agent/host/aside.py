"""A directory's content, put aside while another is in its place.

It stays inside the directory, under a name of its own, so that it is found again by whoever has to
put it back: the directory may be a file system of its own, and who put it aside may have been
killed, at any moment. So it has another name as long as it is not all there: what lies beside that
belongs to it. What is in such a directory may be a stranger's, who may change it meanwhile:
everything goes through descriptors, and follows no link.

Also for programs that have to start quickly: standard library only.
"""

from __future__ import annotations

import contextlib
import os
import stat

from agent.host.emptying import DIRECTORY, empty

# The two names that no content of a pod's volume may have at its top: of all that was in it, and
# of a part that is on its way there or back.
NAME = ".checkpoint-agent"
PARTIAL = ".checkpoint-agent.part"


def put(path: str | os.PathLike[str]) -> None:
    """Put everything in a directory aside; what was there already, of an earlier try, comes back
    first. Raises OSError.
    """
    put_back(path)
    directory = os.open(path, DIRECTORY)
    try:
        names = os.listdir(directory)
        os.mkdir(PARTIAL, 0o700, dir_fd=directory)
        aside = _open_below(directory, PARTIAL)
        try:
            # Its own are the directory's, which are about to be others.
            _copy_owner(directory, aside)
            _move(names, directory, aside)
        finally:
            os.close(aside)
        os.rename(PARTIAL, NAME, src_dir_fd=directory, dst_dir_fd=directory)
    finally:
        os.close(directory)


def put_back(path: str | os.PathLike[str]) -> None:
    """Make a directory what it was; nothing happens where nothing was put aside. Raises OSError."""
    directory = os.open(path, DIRECTORY)
    try:
        _replace(directory)
        try:
            aside = _open_below(directory, PARTIAL)
        except FileNotFoundError:
            return
        try:
            _move(os.listdir(aside), aside, directory)
        finally:
            os.close(aside)
        os.rmdir(PARTIAL, dir_fd=directory)
    finally:
        os.close(directory)


def recover(path: str | os.PathLike[str]) -> None:
    """Make a directory what it was, where somebody was killed who had put that aside.

    What a stranger calls so and is no directory was not put there. Raises OSError.
    """
    if any(_is_directory(os.path.join(path, name)) for name in (NAME, PARTIAL)):
        put_back(path)


def _is_directory(path: str) -> bool:
    return os.path.isdir(path) and not os.path.islink(path)


def _replace(directory: int) -> None:
    """Remove what has come into the place of what is aside, if all of that is."""
    try:
        aside = _open_below(directory, NAME)
    except FileNotFoundError:
        return
    try:
        empty(directory, NAME)
        _copy_owner(aside, directory)
    finally:
        os.close(aside)
    os.rename(NAME, PARTIAL, src_dir_fd=directory, dst_dir_fd=directory)


def forget(path: str | os.PathLike[str]) -> None:
    """Remove what was put aside."""
    directory = os.open(path, DIRECTORY)
    try:
        with contextlib.suppress(OSError):
            aside = _open_below(directory, NAME)
            try:
                empty(aside)
            finally:
                os.close(aside)
            os.rmdir(NAME, dir_fd=directory)
    finally:
        os.close(directory)


def _open_below(directory: int, name: str) -> int:
    return os.open(name, DIRECTORY | os.O_NOFOLLOW, dir_fd=directory)


def _move(names: list[str], source: int, target: int) -> None:
    for name in names:
        os.rename(name, name, src_dir_fd=source, dst_dir_fd=target)


def _copy_owner(source: int, target: int) -> None:
    status = os.fstat(source)
    os.fchown(target, status.st_uid, status.st_gid)
    os.fchmod(target, stat.S_IMODE(status.st_mode))
