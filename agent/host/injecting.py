"""Where the driver's files come from in a container that is restored.

An image could ask for any file of this machine. So only files that have names of NVIDIA's driver
are brought in, and only such that nobody but root can have put there.

Another version of the driver has files of other names: those take the places of the old ones.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

from agent.host.injected import KEY, is_of_driver, mounts_of
from agent.host.launcher import wire

# 570.124.06, in names of libraries and of firmware's directories.
_VERSION: Final = re.compile(r"\d{3}(?:\.\d+)+")

# Of an image's file: two magic numbers; then messages, each after its length. Of mnt_entry in
# CRIU's images/mnt.proto.
_MAGIC_BYTES, _LENGTH_BYTES = 8, 4
_POINT, _EXTERNAL_KEY = 7, 18


@dataclass(frozen=True, slots=True)
class Recorded:
    """A mount in CRIU's images; ``key`` is what it calls one from outside, "" for others."""

    point: str
    key: str


@dataclass(frozen=True, slots=True)
class Injection:
    """What CRIU is told of mounts that runc will not name.

    Attributes:
        words: its options.
        points: where in the root filesystem something has to be for that, and whether a directory.
    """

    words: tuple[str, ...] = ()
    points: tuple[tuple[str, bool], ...] = ()

    def prepare(self, root: Path) -> None:
        """Make the mount points that are missing in a root filesystem. Raises OSError."""
        for point, is_directory in self.points:
            _make(root, PurePosixPath(point), is_directory=is_directory)


NOTHING: Final = Injection()


def read_mounts(image: bytes) -> list[Recorded]:
    """The content of an image `mountpoints-`. Raises ValueError."""
    found, at = [], _MAGIC_BYTES
    while at < len(image):
        begin = at + _LENGTH_BYTES
        at = begin + int.from_bytes(image[at:begin], "little")
        if at > len(image):
            raise ValueError("a message is cut off")
        entry = dict(wire.fields(image[begin:at]))
        point, key = entry.get(_POINT, b""), entry.get(_EXTERNAL_KEY, b"")
        if not isinstance(point, bytes) or not isinstance(key, bytes) or b"\0" in point + key:
            raise ValueError("a mount without a name")
        # CRIU writes ./dev/shm, and ./ for the root.
        found.append(Recorded(os.path.normpath("/" + os.fsdecode(point)), os.fsdecode(key)))
    return found


def inject(recorded: Iterable[Recorded], config: Mapping[str, Any]) -> Injection:
    """Where mounts of the driver come from.

    Args:
        recorded: all mounts of the container as it was.
        config: of the container that is restored; runc tells CRIU of its mounts.

    Raises:
        FileNotFoundError: this machine has no such file; its name.
    """
    everything = list(recorded)
    mounts = mounts_of(config)
    words: list[str] = []
    points: list[tuple[str, bool]] = []
    for mount in everything:
        if mount.key.startswith(KEY):
            source = _here(mount.key.removeprefix(KEY))
        elif mount.key in mounts or not is_of_driver(mount.key):
            continue
        else:
            source = _counterpart(mount.key, mounts)
        words += ["--external", f"mnt[{mount.key}]:{source}"]
        # CRIU brings those in other mounts back by itself.
        if not any(_is_inside(mount.point, other.point) for other in everything):
            points.append((mount.point, os.path.isdir(source)))
    return Injection(tuple(words), tuple(points))


def _is_inside(point: str, other: str) -> bool:
    return other != "/" and point.startswith(f"{other}/")


def _here(path: str) -> str:
    """The same file of this machine, or that of its driver's version."""
    if not is_of_driver(path):
        raise FileNotFoundError(path)
    for candidate in (path, *_versions_of(path)):
        if _is_trusted(candidate):
            return candidate
    raise FileNotFoundError(path)


def _versions_of(path: str) -> list[str]:
    """Files that differ in the driver's version alone, which is in one part of the path."""
    parts = PurePosixPath(path).parts
    at = next((at for at, part in enumerate(parts) if _VERSION.search(part)), 0)
    directory, rest = os.path.join(*parts[:at] or ("/",)), parts[at + 1 :]
    if not at or not os.path.isdir(directory):
        return []
    plain = _VERSION.sub("", parts[at])
    names = [name for name in os.listdir(directory) if _VERSION.sub("", name) == plain]
    return [os.path.join(directory, name, *rest) for name in sorted(names)]


def _counterpart(point: str, mounts: Mapping[str, str]) -> str:
    """What is mounted in the new container where only the driver's version differs."""
    plain = _VERSION.sub("", point)
    for other, source in mounts.items():
        if other != point and _VERSION.sub("", other) == plain:
            return source
    raise FileNotFoundError(point)


def _is_trusted(path: str) -> bool:
    """Whether it is there, and nobody but root can have put it there or can replace it."""
    try:
        found = os.lstat(path)
        above = [os.lstat(part) for part in PurePosixPath(path).parents]
    except OSError:
        return False
    return (
        os.path.isabs(path)
        and not stat.S_ISLNK(found.st_mode)
        and found.st_uid == 0
        and all(map(_is_roots, above))
    )


def _is_roots(directory: os.stat_result) -> bool:
    """A real directory of root's, in which nobody can replace what is another's."""
    guarded = not directory.st_mode & 0o022 or directory.st_mode & stat.S_ISVTX
    return stat.S_ISDIR(directory.st_mode) and directory.st_uid == 0 and bool(guarded)


def _make(root: Path, point: PurePosixPath, *, is_directory: bool) -> None:
    """Follows no link: what is in a root filesystem is the container's."""
    with contextlib.ExitStack() as stack:
        parent = stack.enter_context(_opened(root, None))
        for part in point.parts[1:-1]:
            with contextlib.suppress(FileExistsError):
                os.mkdir(part, 0o755, dir_fd=parent)
            parent = stack.enter_context(_opened(part, parent))
        with contextlib.suppress(FileExistsError):
            if is_directory:
                os.mkdir(point.name, 0o755, dir_fd=parent)
            else:
                os.mknod(point.name, stat.S_IFREG | 0o644, dir_fd=parent)


@contextlib.contextmanager
def _opened(path: str | Path, parent: int | None) -> Iterator[int]:
    flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
    if parent is not None:
        flags |= os.O_NOFOLLOW
    opened = os.open(path, flags, dir_fd=parent)
    try:
        yield opened
    finally:
        os.close(opened)
