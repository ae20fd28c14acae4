"""A capture under test, with everything below it real."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from agent.capture.images import ImageSet
from agent.capture.pipeline import Pipeline
from agent.capture.streamer import Capture
from agent.store.base import Store
from agent.store.memory import MemoryStore
from tests.fakes.criu_dump import CriuDump
from tests.pipelines import manifest, pipeline, read_images
from tests.waiting import PATIENCE


@dataclass
class Scene:
    """A capture, what it writes to, and the CRIU it hears."""

    capture: Capture
    images: ImageSet
    pipeline: Pipeline
    store: Store
    directory: Path
    drained: threading.Event

    def drain(self) -> bool:
        """What the agent does at `post-dump`; whether everything was copied out."""
        self.capture.drain()
        assert self.drained.wait(PATIENCE)
        return self.capture.complete

    def stored(self) -> dict[str, bytes]:
        """End the capture well: all images as they are in the store."""
        assert self.drain()
        self.capture.stop()
        images = self.images.complete()
        return read_images(self.store, manifest(self.pipeline.finish(), images))


@contextmanager
def scene(
    directory: Path,
    *,
    store: Store | None = None,
    compression: str = "zstd:-7",
    start: bool = True,
) -> Iterator[Scene]:
    """A capture that waits for CRIU in ``directory``."""
    directory.mkdir(parents=True, exist_ok=True)
    store = store or MemoryStore("capture")
    with pipeline(store, compression=compression) as way:
        images = ImageSet(way)
        drained = threading.Event()
        capture = Capture(directory, images, way, on_drained=drained.set)
        try:
            if start:
                capture.start()
            yield Scene(capture, images, way, store, directory, drained)
        finally:
            capture.stop()


@contextmanager
def dumping(directory: Path, *, store: Store | None = None) -> Iterator[tuple[Scene, CriuDump]]:
    """The same, with a CRIU connected."""
    with scene(directory, store=store) as made, CriuDump(directory) as criu:
        yield made, criu
