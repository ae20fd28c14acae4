"""Which stores a request may name: those at or below one that the node's configuration names.

Whoever may send an action must not be able to choose where root writes files, or which server gets
a node's memory.
"""

from __future__ import annotations

import os
from urllib.parse import unquote, urlsplit

from agent.errors import InvalidArgument
from agent.settings import Storage
from agent.store import Store, open_checkpoint, open_store


def allowed_store(url: str | None, storage: Storage, field: str) -> Store:
    """The store at ``url``, or the node's own. Blocks: links in a path are followed.

    Args:
        field: of the request, for errors.

    Raises:
        InvalidArgument: it is no store, or not one that is allowed.
    """
    if not url:
        return open_store(storage.store)
    try:
        store = open_store(url)
    except InvalidArgument as error:
        raise InvalidArgument(field, error.reason) from None
    _check(store, storage, field)
    return store


def allowed_checkpoint(path: str, storage: Storage, field: str) -> tuple[Store, str]:
    """A checkpoint's store and name. Blocks and raises as :func:`allowed_store`."""
    if not path:
        raise InvalidArgument(field, "is missing")
    try:
        store, name = open_checkpoint(path)
    except InvalidArgument as error:
        raise InvalidArgument(field, error.reason) from None
    _check(store, storage, field)
    return store, name


def _check(store: Store, storage: Storage, field: str) -> None:
    server, path = _place(store, field)
    for url in storage.allowed:
        root_server, root_path = _place(open_store(url), field)
        if server == root_server and os.path.commonpath((path, root_path)) == root_path:
            return
    reason = "is not at or below the node's store or one of [storage] roots"
    raise InvalidArgument(field, reason)


def _place(store: Store, field: str) -> tuple[str, str]:
    """Everything but the path (an endpoint is part of it), and the path without links and dots."""
    parts = urlsplit(store.url)
    path = unquote(parts.path)
    if parts.scheme == "file":
        return "file:", os.path.realpath(path)
    # To an object store dots are letters; to what stands before it perhaps not.
    if {".", ".."} & set(path.split("/")):
        raise InvalidArgument(field, "has `.` or `..` in it")
    return parts._replace(path="").geturl(), os.path.normpath(f"/{path.lstrip('/')}")
