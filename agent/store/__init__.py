"""Where checkpoints live: one protocol, several stores, one contract suite for all of them.

A store holds immutable objects under relative slash-separated paths (``<checkpoint>/stream-000``).
Nothing is ever overwritten, nothing half-written is ever visible, and what a call has returned from
is durable. All calls block and may be made from any thread; they release the GIL while they wait.
Every failure is an :mod:`agent.errors` class; no library's exception leaves this package.
"""

from __future__ import annotations

from agent.store.base import ObjectInfo, ObjectWriter, Store
from agent.store.url import checkpoint_path, open_checkpoint, open_store, path_below

__all__ = [
    "ObjectInfo",
    "ObjectWriter",
    "Store",
    "checkpoint_path",
    "open_checkpoint",
    "open_store",
    "path_below",
]
