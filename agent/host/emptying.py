"""Removes what a stranger has put into a directory, however deep it is.

`shutil.rmtree` calls itself for each folder in a folder, and gives up at about a thousand of them;
until Python 3.13, and with RecursionError, which nobody expects of it. Here no folder is ever
looked for below another one: those that are found move up first.

Also for programs that have to start quickly: standard library only, and little of that.
"""

from __future__ import annotations

import contextlib
import os

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def remove(path: str | os.PathLike[str]) -> None:
    """A directory with everything in it, as far as that can be removed."""
    with contextlib.suppress(OSError):
        directory = os.open(path, DIRECTORY | os.O_NOFOLLOW)
        try:
            empty(directory)
        finally:
            os.close(directory)
        os.rmdir(path)


def empty(directory: int, but: str = "") -> None:
    """Remove everything in an open directory except what is called ``but``; no link is followed.

    What somebody else removes meanwhile is gone as well. Raises OSError.
    """
    names = [name for name in os.listdir(directory) if name != but]
    # Nobody else has names like these.
    prefix, moved = os.urandom(8).hex(), 0
    while names:
        name = names.pop()
        if _is_unlinked(name, directory):
            continue
        with contextlib.suppress(FileNotFoundError):
            found = os.open(name, DIRECTORY | os.O_NOFOLLOW, dir_fd=directory)
            try:
                for child in os.listdir(found):
                    if not _is_unlinked(child, found):
                        moved += 1
                        names.append(f"{prefix}-{moved}")
                        with contextlib.suppress(FileNotFoundError):
                            os.rename(child, names[-1], src_dir_fd=found, dst_dir_fd=directory)
            finally:
                os.close(found)
            os.rmdir(name, dir_fd=directory)


def _is_unlinked(name: str, directory: int) -> bool:
    """Remove it, unless it is a directory."""
    try:
        os.unlink(name, dir_fd=directory)
    except IsADirectoryError:
        return False
    except FileNotFoundError:
        pass
    return True
