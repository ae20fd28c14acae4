r"""The kernel's table of mounts, as each process sees it: /proc/PID/mountinfo.

    36 35 0:40 / /mnt/point rw,noatime shared:1 - overlay none rw,lowerdir=/a:/b,upperdir=/c

Bytes throughout: paths are, and options quote each other in ways of their own. Imported by small
programs that have to start quickly.
"""

from __future__ import annotations

from collections.abc import Iterator


class Mount:
    """One mount. ``options`` and ``shared`` are the mount's, ``super_options`` its file system's.

    Attributes:
        line: all of it, as the kernel told it.
        device: major and minor number of the file system, the same for all its mounts.
        root: the directory of the file system that is mounted, mostly ``/``.
        shared: tags of propagation: ``shared:7``, ``master:3``, ``unbindable``.
        super_options: name and value in the order that the kernel tells them; no value, None.
    """

    __slots__ = (
        "device",
        "kind",
        "line",
        "options",
        "point",
        "root",
        "shared",
        "source",
        "super_options",
    )  # fmt: skip

    def __init__(self, line: bytes) -> None:
        self.line = line
        own, _, rest = line.partition(b" - ")
        fields, (kind, source, super_options) = own.split(b" "), rest.split(b" ", 2)
        self.device, self.root, self.point = fields[2], unescape(fields[3]), unescape(fields[4])
        self.options = fields[5].split(b",")
        self.shared = fields[6:]
        self.kind, self.source = kind, unescape(source)
        self.super_options = [_option(each) for each in _split(super_options)]

    def option(self, name: bytes) -> bytes | None:
        """The value of one of the file system's options."""
        return dict(self.super_options).get(name)


def read(table: str = "/proc/self/mountinfo") -> list[Mount]:
    """All mounts, in an order in which later ones lie over earlier ones. Raises OSError."""
    with open(table, "rb") as file:
        # Not splitlines(): a carriage return in a path is not escaped, and ends no line.
        return [Mount(line) for line in file.read().split(b"\n") if line]


def topmost(point: bytes, mounts: list[Mount]) -> Mount | None:
    """The mount that is seen at a mount point."""
    return next((mount for mount in reversed(mounts) if mount.point == point), None)


def unescape(text: bytes) -> bytes:
    r"""A path as the kernel writes it: blanks, commas, backslashes as \040, \054, \134."""
    first, *others = text.split(b"\\")
    return first + b"".join(map(_unescaped, others))


def _unescaped(part: bytes) -> bytes:
    """What followed a backslash. Not every file system escapes one that its options have."""
    try:
        return bytes([int(part[:3], 8)]) + part[3:]
    except ValueError:
        return b"\\" + part


def _split(options: bytes) -> Iterator[bytes]:
    """At commas, which SELinux has in its values too: ``context="system_u:object_r:a:s0:c1,c2"``.

    Those of paths are escaped.
    """
    quoted = b""
    for part in options.split(b","):
        quoted = quoted + b"," + part if quoted else part
        if b'context="' in quoted and not quoted.endswith(b'"'):
            continue
        yield quoted
        quoted = b""


def _option(text: bytes) -> tuple[bytes, bytes | None]:
    name, equals, value = text.partition(b"=")
    return name, unescape(value) if equals else None
