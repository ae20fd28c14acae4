"""Which store a URL means, and the URLs of checkpoints: a store's with one more component."""

from __future__ import annotations

import os
import re
import threading
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit

from agent.errors import InvalidArgument
from agent.store.base import Store
from agent.store.file import FileStore
from agent.store.memory import MemoryStore
from agent.store.paths import components

_PARAMETERS = {"s3": ("endpoint", "region", "path_style"), "gs": (), "az": ()}
_FORMS = "a directory, file:///DIR, s3://BUCKET/PREFIX, gs://, az:// or memory://NAME"
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")

_memory_stores: dict[str, MemoryStore] = {}
_memory_lock = threading.Lock()


def open_store(url: str) -> Store:
    """The store that ``url`` names: one of file:, memory:, s3:, gs: and az:, or a directory.

    Reaches for nothing yet. ``memory://NAME`` is the same store all over the process. An s3: URL
    may end in ``?endpoint=URL&region=NAME&path_style=true``. Raises InvalidArgument.
    """
    parts = _split(url)
    if parts.scheme == "file":
        return FileStore(Path(unquote(parts.path)))
    if parts.scheme == "memory":
        if parts.path:
            raise InvalidArgument("store", "memory://NAME takes no path")
        with _memory_lock:
            return _memory_stores.setdefault(parts.netloc, MemoryStore(parts.netloc))
    # Only here: commands that work in directories need not load obstore's 20 MB.
    from agent.store.object import ObjectStore

    return ObjectStore(parts, dict(parse_qsl(parts.query)))


def open_checkpoint(path: str) -> tuple[Store, str]:
    """A checkpoint's store and its name there, from what :func:`checkpoint_path` made, or a user.

    Raises InvalidArgument.
    """
    parts = _split(path)
    above, _, name = parts.path.rstrip("/").rpartition("/")
    name = unquote(name)
    if not name:
        raise InvalidArgument("path", "ends without a checkpoint's name")
    if len(components(name)) > 1:
        raise InvalidArgument("path", f"{name!r} is no checkpoint's name")
    if parts.scheme == "file":
        above = above or "/"
    return open_store(parts._replace(path=above).geturl()), name


def checkpoint_path(store: Store, name: str) -> str:
    """Where a checkpoint is, as one string: the store's URL with the name before any query."""
    return path_below(store.url, name)


def path_below(url: str, name: str) -> str:
    """The same of a store that cannot be opened now, by its ``url``."""
    parts = urlsplit(url)
    return parts._replace(path=f"{parts.path.rstrip('/')}/{name}").geturl()


def _split(url: str) -> SplitResult:
    """The parts of a store's URL, or of the one that a directory's path stands for.

    No message repeats the URL: a user may have put a secret into it.
    """
    if not url or "\0" in url:
        raise InvalidArgument("store", f"must be {_FORMS}")
    if not _SCHEME.match(url):
        return SplitResult("file", "", quote(os.path.abspath(url)), "", "")
    try:
        parts = urlsplit(url)
    except ValueError:
        raise InvalidArgument("store", f"not a URL; must be {_FORMS}") from None
    if "@" in parts.netloc:
        raise InvalidArgument(
            "store", "credentials belong in the environment or the profile, not in the URL"
        )
    if parts.scheme == "file":
        return _split_file(parts)
    if parts.scheme == "memory" and not parts.query and not parts.fragment:
        components(parts.netloc)
        return parts
    return _split_object(parts)


def _split_file(parts: SplitResult) -> SplitResult:
    if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
        raise InvalidArgument("store", "a file: URL is file:/// and an absolute path")
    if parts.query or parts.fragment or "%00" in parts.path:
        raise InvalidArgument("store", "a file: URL has no '?', '#' or NUL that is not part of it")
    return parts._replace(netloc="")


def _split_object(parts: SplitResult) -> SplitResult:
    known = _PARAMETERS.get(parts.scheme)
    if known is None or parts.fragment:
        raise InvalidArgument("store", f"{parts.scheme}: is no store; must be {_FORMS}")
    for name, _ in parse_qsl(parts.query, keep_blank_values=True):
        if name not in known:
            allowed = ", ".join(known) or "none"
            raise InvalidArgument(
                "store", f"no parameter {name!r} in a {parts.scheme}: URL ({allowed})"
            )
    return parts
