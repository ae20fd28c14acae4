"""The kernel's calls about mounts, without a program in between.

Imported by small programs that have to start quickly: ctypes takes 4 ms, and nothing else is used.
"""

from __future__ import annotations

import ctypes
import os

RDONLY = 1
NOSUID = 1 << 1
NODEV = 1 << 2
NOEXEC = 1 << 3
REMOUNT = 1 << 5
NOSYMFOLLOW = 1 << 8
NOATIME = 1 << 10
NODIRATIME = 1 << 11
BIND = 1 << 12
REC = 1 << 14
UNBINDABLE = 1 << 17
PRIVATE = 1 << 18
SHARED = 1 << 20
RELATIME = 1 << 21
STRICTATIME = 1 << 24

MNT_DETACH = 2
UMOUNT_NOFOLLOW = 8

CLONE_FS = 0x200
CLONE_NEWNS = 0x20000

# Numbers that these calls have on every architecture, as all that came in 2019 and later.
_MOVE_MOUNT, _FSOPEN, _FSCONFIG, _FSMOUNT = 429, 430, 431, 432
_CLOEXEC = 1
_SET_FLAG, _SET_STRING, _CMD_CREATE = 0, 1, 6
_MOVE_MOUNT_F_EMPTY_PATH = 4
_AT_FDCWD = -100

# What fsmount() calls the flags of a mount.
_ATTRIBUTES = {
    RDONLY: 0x1,
    NOSUID: 0x2,
    NODEV: 0x4,
    NOEXEC: 0x8,
    NOATIME: 0x10,
    STRICTATIME: 0x20,
    NODIRATIME: 0x80,
    NOSYMFOLLOW: 0x200000,
}

_libc = ctypes.CDLL(None, use_errno=True)
# glibc has functions for the calls by number only since 2.36.
_libc.syscall.restype = ctypes.c_long


def mount(source: bytes, point: bytes, kind: bytes, flags: int, options: bytes = b"") -> None:
    """mount(2). ``options`` have to fit a page. Raises OSError."""
    data = options or None
    _checked(_libc.mount(source, point, kind, ctypes.c_ulong(flags), data), point)


def unmount(point: bytes, flags: int = 0) -> None:
    """umount2(2), never through a symbolic link. Raises OSError."""
    _checked(_libc.umount2(point, flags | UMOUNT_NOFOLLOW), point)


def unshare(what: int) -> None:
    """unshare(2), of the calling thread. Raises OSError."""
    _checked(_libc.unshare(what))


def mount_by_steps(
    source: bytes, point: bytes, kind: bytes, flags: int, options: list[tuple[bytes, bytes | None]]
) -> None:
    """Mount what mount(2) has no words for: options beyond a page, each up to 255 bytes.

    ``flags`` are mount(2)'s, of the mount; those of the file system are options. Needs Linux 5.2,
    and a later one for some options. Raises OSError.
    """
    context = _call(_FSOPEN, kind, _CLOEXEC)
    try:
        for name, value in [(b"source", source), *options]:
            step = _SET_FLAG if value is None else _SET_STRING
            _call(_FSCONFIG, context, step, name, value, 0)
        _call(_FSCONFIG, context, _CMD_CREATE, None, None, 0)
        attributes = sum(meant for flag, meant in _ATTRIBUTES.items() if flags & flag)
        made = _call(_FSMOUNT, context, _CLOEXEC, attributes)
        try:
            _call(_MOVE_MOUNT, made, b"", _AT_FDCWD, point, _MOVE_MOUNT_F_EMPTY_PATH)
        finally:
            os.close(made)
    finally:
        os.close(context)


def enter(directory: bytes) -> None:
    """Make a mount point the root of this process's mount namespace, and drop all other mounts.

    Raises OSError, also where the root is an initramfs, which cannot be left that way.
    """
    os.chdir(directory)
    # The old root comes to lie over the new one, is the first to be found, and goes.
    _checked(_libc.pivot_root(b".", b"."), directory)
    unmount(b".", MNT_DETACH)
    os.chdir("/")


def _call(number: int, *arguments: bytes | int | None) -> int:
    # Without this, an int is passed as 32 bits, and the upper half is whatever was there.
    words = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    return _checked(int(_libc.syscall(ctypes.c_long(number), *words)))


def _checked(result: int, path: bytes | None = None) -> int:
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), path and os.fsdecode(path))
    return result
