"""Which paths a store takes: the same for all, so that none can be talked out of itself."""

from __future__ import annotations

import re

from agent.errors import InvalidArgument

# No leading dot: it would let in "." and "..", and hidden names are FileStore's own. 200 of a file
# name's 255 bytes, because FileStore may add to a name while the file is being written.
_COMPONENT = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}")
_PATH_BYTES = 700  # of the 1,024 bytes of an S3 key; the rest is for the store's own prefix


def components(path: str) -> list[str]:
    """The components of an object's path. Raises InvalidArgument for one that no store may take."""
    parts = path.split("/")
    if len(path) > _PATH_BYTES or not all(map(_COMPONENT.fullmatch, parts)):
        raise InvalidArgument(
            "path",
            f"{path!r} is not letters, digits, '.', '_' and '-' in parts separated by '/'"
            f" (each up to 200 long and not starting with '.', {_PATH_BYTES} in all)",
        )
    return parts


def directory_components(prefix: str) -> list[str]:
    """Like :func:`components` for a directory, where "" is the store itself."""
    return components(prefix) if prefix else []
