"""Reading manifests, chunks and small images: right or refused, never wrong."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from itertools import product

import pytest

from agent.chunks import MAX_SMALL_IMAGE, ChunkCache, ChunkReader, read_image, read_manifest
from agent.errors import CheckpointCorrupt, CheckpointNotFound
from agent.frame import FRAME_HEADER_SIZE, Codec
from agent.manifest import MAX_MANIFEST, Chunk, Manifest
from agent.store.base import Data
from agent.store.memory import MemoryStore
from tests.checkpoints import ID, content, flip, flip_payload, replace, write_checkpoint
from tests.unit.threads import running

IMAGES = {
    "inventory.img": b"i" * 100,
    "core-1.img": bytes(range(256)) * 10,
    "pages-1.img": b"".join(bytes([at % 251]) * 1000 for at in range(300)),
}
CHUNK = 1 << 16


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore("chunks")


@pytest.fixture
def manifest(store: MemoryStore) -> Manifest:
    return write_checkpoint(store, IMAGES, chunk_size=CHUNK)


def test_a_manifest_comes_back(store: MemoryStore, manifest: Manifest) -> None:
    assert read_manifest(store, ID) == manifest


@pytest.mark.parametrize("name", ["missing", "", "..", "a/b", "Upper", f"{ID}\n", "x" * 129])
def test_what_has_no_manifest_is_no_checkpoint(
    store: MemoryStore, manifest: Manifest, name: str
) -> None:
    with pytest.raises(CheckpointNotFound):
        read_manifest(store, name)


def test_streams_without_a_manifest_are_no_checkpoint(
    store: MemoryStore, manifest: Manifest
) -> None:
    store.delete(f"{ID}/manifest.json")
    with pytest.raises(CheckpointNotFound, match=rf"memory://chunks/{ID}"):
        read_manifest(store, ID)


def test_a_manifest_of_another_checkpoint_is_refused(
    store: MemoryStore, manifest: Manifest
) -> None:
    store.put("other/manifest.json", content(store, f"{ID}/manifest.json"))
    with pytest.raises(CheckpointCorrupt, match=f"that of {ID}"):
        read_manifest(store, "other")


def test_a_huge_manifest_is_refused_before_it_is_read() -> None:
    class Huge(MemoryStore):
        def size(self, path: str) -> int:
            return MAX_MANIFEST + 1

        def read(self, path: str, offset: int, length: int) -> Data:
            raise AssertionError("read")

    with pytest.raises(CheckpointCorrupt, match="too big"):
        read_manifest(Huge("huge"), ID)


def test_a_manifest_that_shrinks_while_it_is_read_is_damaged() -> None:
    class Shrinking(MemoryStore):
        def size(self, path: str) -> int:
            return super().size(path) + 1

    store = Shrinking("shrinking")
    write_checkpoint(store, IMAGES)
    with pytest.raises(CheckpointCorrupt, match="shorter"):
        read_manifest(store, ID)


@pytest.mark.parametrize("compression", ["none", "lz4", "zstd:1", "zstd:19"])
def test_images_come_back(store: MemoryStore, compression: str) -> None:
    manifest = write_checkpoint(store, IMAGES, compression=compression, chunk_size=CHUNK)
    reader = ChunkReader(store, manifest)
    images = manifest.members[0].images
    assert {image.name: read_image(reader, image) for image in images} == IMAGES


def test_a_frame_is_read_in_one_go(manifest: Manifest, store: MemoryStore) -> None:
    counting = Counting("counting")
    manifest = write_checkpoint(counting, IMAGES, chunk_size=CHUNK)
    ChunkReader(counting, manifest).read(1)
    chunk = manifest.chunks[1]
    assert counting.reads == [(chunk.offset, FRAME_HEADER_SIZE + chunk.stored)]


class Counting(MemoryStore):
    """Notes every read of a stream."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.reads: list[tuple[int, int]] = []

    def read(self, path: str, offset: int, length: int) -> Data:
        if "stream" in path:
            self.reads.append((offset, length))
        return super().read(path, offset, length)


PLACES = [*range(0, FRAME_HEADER_SIZE, 3), FRAME_HEADER_SIZE, FRAME_HEADER_SIZE + 9]


@pytest.mark.parametrize(("compression", "place"), list(product(["none", "lz4", "zstd:1"], PLACES)))
def test_no_flipped_bit_gets_through(store: MemoryStore, compression: str, place: int) -> None:
    manifest = write_checkpoint(store, IMAGES, compression=compression, streams=1)
    flip(store, f"{ID}/stream-000", manifest.chunks[0].offset + place)
    with pytest.raises(CheckpointCorrupt, match=r"stream-000, chunk 0 \(part of inventory\.img"):
        ChunkReader(store, manifest).read(0)


LIES: dict[str, Callable[[Chunk], Chunk]] = {
    "stream": lambda chunk: chunk._replace(stream=chunk.stream ^ 1),
    "codec": lambda chunk: chunk._replace(codec=Codec.LZ4),
    "raw": lambda chunk: chunk._replace(raw=chunk.raw - 1),
    "stored": lambda chunk: chunk._replace(stored=chunk.stored - 1),
    "digest": lambda chunk: chunk._replace(digest="0" * 32),
    "offset": lambda chunk: chunk._replace(offset=chunk.offset + 1),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_frame_that_is_not_what_the_manifest_tells_of_is_refused(
    store: MemoryStore, manifest: Manifest, lie: str
) -> None:
    chunks = list(manifest.chunks)
    chunks[2] = LIES[lie](chunks[2])
    lying = manifest.model_copy(update={"chunks": chunks})
    with pytest.raises(CheckpointCorrupt):
        ChunkReader(store, lying).read(2)


def test_two_frames_cannot_change_places(store: MemoryStore, manifest: Manifest) -> None:
    chunks = list(manifest.chunks)
    chunks[1], chunks[2] = chunks[2], chunks[1]
    with pytest.raises(CheckpointCorrupt, match="not the one"):
        ChunkReader(store, manifest.model_copy(update={"chunks": chunks})).read(1)


def test_a_missing_and_a_short_stream_are_damage(store: MemoryStore, manifest: Manifest) -> None:
    number = max(range(len(manifest.chunks)), key=lambda at: manifest.chunks[at].offset)
    chunk = manifest.chunks[number]
    path = f"{ID}/{manifest.streams[chunk.stream].path}"
    end = chunk.offset + FRAME_HEADER_SIZE + chunk.stored
    replace(store, path, content(store, path)[: end - 1])
    with pytest.raises(CheckpointCorrupt, match="the stream ends before it"):
        ChunkReader(store, manifest).read(number)
    store.delete(path)
    with pytest.raises(CheckpointCorrupt, match="the stream is missing"):
        ChunkReader(store, manifest).read(number)


def test_a_large_image_is_not_read_whole(store: MemoryStore, manifest: Manifest) -> None:
    image = manifest.members[0].images[0]
    with pytest.raises(ValueError, match="more than"):
        read_image(ChunkReader(store, manifest), image, limit=image.size - 1)
    assert image.size < MAX_SMALL_IMAGE


def test_a_shared_chunk_is_read_once() -> None:
    store = Counting("once")
    manifest = write_checkpoint(store, {f"core-{at}.img": b"%d" % at for at in range(50)})
    cache = ChunkCache(ChunkReader(store, manifest), 1 << 20)
    for at, image in enumerate(manifest.members[0].images):
        assert read_image(cache, image) == b"%d" % at
    assert len(store.reads) == 1


def test_a_shared_chunk_is_read_once_when_many_ask_at_the_same_time() -> None:
    class Slow(Counting):
        gate = threading.Event()

        def read(self, path: str, offset: int, length: int) -> Data:
            data = super().read(path, offset, length)
            assert self.gate.wait(3600)
            return data

    store = Slow("slow")
    manifest = write_checkpoint(store, {"core-1.img": b"1"})
    cache = ChunkCache(ChunkReader(store, manifest), 1 << 20)
    found: list[Data] = []
    with ExitStack() as threads:
        for _ in range(5):
            threads.enter_context(running(lambda: found.append(cache.read(0))))
        store.gate.set()
    assert [bytes(one) for one in found] == [b"1"] * 5
    assert len(store.reads) == 1


def test_the_cache_keeps_within_its_capacity() -> None:
    store = Counting("capacity")
    manifest = write_checkpoint(store, {"pages-1.img": bytes(8 * CHUNK)}, chunk_size=CHUNK)
    cache = ChunkCache(ChunkReader(store, manifest), 3 * CHUNK)
    for number in (0, 1, 2, 0, 3, 0, 1):
        cache.read(number)
    # 3 pushed out 1, which had not been used for longest; 0 stayed.
    assert len(store.reads) == 5


def test_a_damaged_shared_chunk_fails_everybody(store: MemoryStore, manifest: Manifest) -> None:
    flip_payload(store, manifest, 0)
    cache = ChunkCache(ChunkReader(store, manifest), 1 << 20)
    for _ in range(2):
        with pytest.raises(CheckpointCorrupt):
            cache.read(0)
