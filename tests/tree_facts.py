"""What a directory tree consists of, to compare two of them; and one that has everything."""

from __future__ import annotations

import hashlib
import os
import stat
import struct
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HOLE = 64 << 20

# What an overlay writes down about the file system that it was on.
BOUND_TO_THEIR_PLACE = ("trusted.overlay.origin", "trusted.overlay.uuid")


@dataclass(frozen=True, slots=True)
class Facts:
    """Of one file of whatever kind. ``links``: the other names that it has in the tree."""

    mode: int
    owner: tuple[int, int]
    mtime_ns: int
    device: int
    content: str
    sparse: bool
    links: tuple[str, ...]
    attributes: dict[str, bytes]


def facts_of(directory: Path, *, without: tuple[str, ...] = ()) -> dict[str, Facts]:
    """Of everything in it and of itself, by the path from it.

    Args:
        without: attributes that do not count.
    """
    names: dict[int, list[str]] = defaultdict(list)
    found = {path: os.lstat(directory / path) for path in _walk(directory)}
    for path, status in found.items():
        # An overlay's whiteouts may be one and the same; that they are is of no use to anybody.
        if not stat.S_ISDIR(status.st_mode) and not stat.S_ISCHR(status.st_mode):
            names[status.st_ino].append(path)
    return {
        path: _facts(directory / path, status, names[status.st_ino], without)
        for path, status in found.items()
    }


def _walk(directory: Path) -> Iterator[str]:
    yield "."
    for parent, folders, files in os.walk(directory):
        for name in folders + files:
            yield os.path.relpath(os.path.join(parent, name), directory)


def _facts(path: Path, status: os.stat_result, names: list[str], without: tuple[str, ...]) -> Facts:
    content = ""
    if stat.S_ISREG(status.st_mode):
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "blake2b").hexdigest()
    elif stat.S_ISLNK(status.st_mode):
        content = os.readlink(path)
    attributes = {
        name: os.getxattr(path, name, follow_symlinks=False)
        for name in os.listxattr(path, follow_symlinks=False)
        if name not in without
    }
    return Facts(
        mode=status.st_mode,
        owner=(status.st_uid, status.st_gid),
        mtime_ns=status.st_mtime_ns,
        device=status.st_rdev,
        content=content,
        sparse=status.st_blocks * 512 < status.st_size // 4,
        links=tuple(sorted(names)) if len(names) > 1 else (),
        attributes=attributes,
    )


def acl(user: int) -> bytes:
    """Read and write for its owner, read for one more user, as the kernel keeps it."""
    entries = [(1, 6, -1), (2, 4, user), (4, 4, -1), (16, 4, -1), (32, 0, -1)]
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in entries)


def build_layer(layer: Path) -> None:
    """Fill an empty directory with all that an upper layer of an overlay can have in it."""
    for name in ("etc", "old", "deep/er/still", "locked"):
        (layer / name).mkdir(parents=True)
    os.mknod(layer / "etc" / "gone", stat.S_IFCHR, os.makedev(0, 0))
    os.setxattr(layer / "old", "trusted.overlay.opaque", b"y")
    os.setxattr(layer / "deep", "trusted.overlay.redirect", b"shallow")
    _owned(layer / "owned")
    os.link(layer / "owned", layer / "deep" / "er" / "twin")
    with (layer / "sparse").open("wb") as file:
        file.seek(HOLE)
        file.write(b"end")
    _special(layer)
    (layer / ("n" * 200 + "\nnew\tline \\ ü")).write_text("a name")
    (layer / "deep" / os.fsdecode(b"no \xff utf-8")).write_bytes(b"\0")
    os.chmod(layer / "locked", 0o500)
    _last(layer)


def _owned(path: Path) -> None:
    path.write_text("by somebody else")
    os.chown(path, 12345, 54321)
    path.chmod(0o4750)
    os.setxattr(path, "user.note", b"kept\0whole")
    # A root's capability (CAP_NET_RAW), which a later chown would take away.
    os.setxattr(path, "security.capability", struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0))


def _special(layer: Path) -> None:
    (layer / "absolute").symlink_to("/etc/passwd")
    (layer / "upwards").symlink_to("../../../etc")
    (layer / "etc" / "sideways").symlink_to("../owned")
    os.lchown(layer / "absolute", 7, 8)
    os.link(layer / "absolute", layer / "deep" / "absolute", follow_symlinks=False)
    os.mkfifo(layer / "fifo", 0o620)
    os.mknod(layer / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    (layer / "empty").touch()
    (layer / "listed").write_text("with an access list")
    os.setxattr(layer / "listed", "system.posix_acl_access", acl(4711))
    os.setxattr(layer / "etc", "system.posix_acl_default", acl(4712))
    (layer / "etc" / "heir" / "folder").mkdir(parents=True)
    (layer / "etc" / "heir" / "file").write_text("whose access list is the folder's")
    # One that came before its folder's.
    (layer / "early").touch(0o664)
    (layer / "early").rename(layer / "etc" / "early")


def _last(layer: Path) -> None:
    """Times, children first; and the directory itself."""
    os.chown(layer, 11, 22)
    layer.chmod(0o1751)
    for number, path in enumerate(sorted(_walk(layer), key=len, reverse=True)):
        at = 1_500_000_000_123_456_789 + number * 86_400_000_000_007
        os.utime(layer / path, ns=(at, at), follow_symlinks=False)
