"""What the tests of stores put into them, and what they find there."""

from __future__ import annotations

import random

from agent.store import Store
from agent.store.object_writer import PART_BYTES

SMALL = bytes(range(256)) * 4
BIG = random.Random(1).randbytes(3 * PART_BYTES + 12_345)
TWO_PARTS = BIG[: PART_BYTES + 1]


def paths(store: Store) -> list[str]:
    return [found.path for found in store.list("")]


def content(store: Store, path: str) -> bytes:
    return bytes(store.read(path, 0, store.size(path)))
