"""An image server with a store behind it and a directory that CRIU would find it in."""

from __future__ import annotations

import random
import threading
from contextlib import ExitStack
from pathlib import Path

from agent.manifest import Manifest
from agent.serve.prefetch import Prefetch
from agent.serve.server import ImageServer
from agent.store.memory import MemoryStore
from tests.checkpoints import write_checkpoint

CHUNK = 1 << 19
MIB = 1 << 20
PAGES = {f"pages-{at}.img": random.Random(at).randbytes(4 * MIB + at) for at in (1, 2, 3)}
SMALL = {
    "inventory.img": b"inventory",
    "core-1.img": b"core" * 1000,
    # More than a pipe holds, so a reader has to take part.
    "pagemap-1.img": random.Random(9).randbytes(2 * MIB),
    "descriptors.json": b"[]",
    "config.json": b"{}",
    "stats-dump": b"stats",
}
# Too large to be held whole, and not pages.
LARGE = {"tmpfs-1.tar.gz.img": random.Random(8).randbytes(5 * MIB)}


class Serving:
    """A server, its store, and the directory that CRIU finds it in."""

    def __init__(self, directory: Path, *, store: MemoryStore | None = None) -> None:
        self.directory = directory
        self.directory.mkdir(parents=True)
        self.store = store or MemoryStore("serve")
        self.manifest: Manifest = write_checkpoint(
            self.store, {**SMALL, **LARGE, **PAGES}, chunk_size=CHUNK, compression="lz4"
        )

    def start(self, *, budget: int = 4 * MIB) -> None:
        self.member = self.manifest.members[0]
        self.failed = threading.Event()
        self.prefetch = Prefetch(
            self.store, self.manifest, self.member.images, budget=budget, workers=2
        )
        self.server = ImageServer(
            self.directory, self.member, self.prefetch, failed=self.failed.set
        )
        self.prefetch.start()
        self.server.start()

    def chunk(self, name: str, piece: int) -> int:
        image = self.member_image(name)
        return image[piece]

    def member_image(self, name: str) -> list[int]:
        image = self.manifest.members[0].image(name)
        assert image is not None
        return [piece.chunk for piece in image.pieces]


def started(stack: ExitStack, serving: Serving, *, budget: int = 4 * MIB) -> Serving:
    serving.start(budget=budget)
    stack.callback(serving.server.close)
    return serving
