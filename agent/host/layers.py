"""How an overlay's options name its layers. Imported by programs that have to start quickly."""

from __future__ import annotations

import os

from agent.host.mountinfo import Mount

# Options that name one layer each, when it was mounted in steps.
BY_STEPS = (b"lowerdir+", b"datadir+")


def lower_directories(mount: Mount) -> list[bytes]:
    """The directories of all layers but the upper one, as they were given."""
    found = [value for name, value in mount.super_options if name in BY_STEPS and value]
    return found + [
        unquoted(part)
        for part in _at_colons(mount.option(b"lowerdir") or b"")
        if part  # what follows "::" has only data
    ]


def _at_colons(paths: bytes) -> list[bytes]:
    parts = [b""]
    for part in paths.split(b":"):
        # A quoted colon: an odd number of backslashes before it.
        if (len(parts[-1]) - len(parts[-1].rstrip(b"\\"))) % 2:
            parts[-1] += b":" + part
        else:
            parts.append(part)
    return parts[1:]


def unquoted(path: bytes) -> bytes:
    r"""A path as overlay itself takes it: commas, colons and backslashes as \,, \: and \\."""
    first, *others = path.replace(b"\\\\", b"\0").split(b"\\")
    return (first + b"".join(others)).replace(b"\0", b"\\")


def storage_of(mount: Mount) -> bytes:
    """Where relative layers are found from: the storage that has a directory for each layer.

    containerd: SNAPSHOTS/13/fs over 12/fs. containers-storage: OVERLAY/ID/diff, mounted at
    OVERLAY/ID/merged, over l/ABC.
    """
    upper = unquoted(mount.option(b"upperdir") or b"")
    path = mount.point if is_relative(upper) else upper
    return os.path.dirname(os.path.dirname(path))


def is_relative(path: bytes) -> bool:
    return not path.startswith(b"/")
