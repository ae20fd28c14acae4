"""Verification finds every kind of damage, says where, and finds none where there is none."""

from __future__ import annotations

import asyncio
import json
import random
import threading
import time
from collections.abc import Callable

import pytest

from agent.errors import CheckpointCorrupt, CheckpointNotFound, FormatTooNew, StoreFailed
from agent.frame import END_MARK_SIZE, FRAME_HEADER_SIZE, STREAM_HEADER_SIZE, digest
from agent.manifest import Manifest, to_bytes
from agent.report import Update
from agent.store.base import Data
from agent.store.memory import MemoryStore
from agent.verify import MAX_DAMAGE, verify
from tests.checkpoints import (
    ID,
    content,
    first_frame_end,
    flip,
    flip_payload,
    replace,
    write_checkpoint,
)
from tests.waiting import PATIENCE

IMAGES = {
    "inventory.img": b"inventory",
    "core-1.img": b"core" * 1000,
    "pages-1.img": random.Random(1).randbytes(3 * (1 << 16) + 1),
    "pages-2.img": bytes(5 * (1 << 16)),
}
MANIFEST = f"{ID}/manifest.json"
STREAM = f"{ID}/stream-000"


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore("verify")


@pytest.fixture
def manifest(store: MemoryStore) -> Manifest:
    return write_checkpoint(store, IMAGES, chunk_size=1 << 16)


async def damage(store: MemoryStore) -> str:
    with pytest.raises(CheckpointCorrupt) as caught:
        await verify(store, ID)
    return caught.value.reason


@pytest.mark.parametrize("compression", ["none", "lz4", "zstd:1"])
@pytest.mark.parametrize("streams", [1, 3, 64])
async def test_a_whole_checkpoint(store: MemoryStore, compression: str, streams: int) -> None:
    manifest = write_checkpoint(
        store, IMAGES, IMAGES, compression=compression, streams=streams, chunk_size=1 << 16
    )
    seen: list[Update] = []
    result = await verify(store, ID, observer=seen.append)
    assert (result.members, result.images, result.streams) == (2, 8, streams)
    assert result.bytes_raw == 2 * sum(len(data) for data in IMAGES.values())
    assert result.bytes_stored == manifest.bytes_stored
    assert seen[-1].bytes_raw == seen[-1].bytes_total == result.bytes_raw


async def test_no_checkpoint(store: MemoryStore) -> None:
    with pytest.raises(CheckpointNotFound):
        await verify(store, "missing")


@pytest.mark.parametrize(
    "place",
    [
        *(0, 5, 7, 15, 26, 31),
        *(STREAM_HEADER_SIZE + at for at in (0, 4, 6, 8, 13, 17, 20, 39)),
        *(STREAM_HEADER_SIZE + FRAME_HEADER_SIZE + at for at in (0, 1, 30)),
        *(-END_MARK_SIZE + at for at in (-1, 0, 4, 8, 20, 31)),
    ],
)
async def test_a_flipped_bit_is_found_wherever_it_is(
    store: MemoryStore, manifest: Manifest, place: int
) -> None:
    flip(store, STREAM, place)
    assert "stream-000" in await damage(store)


@pytest.mark.parametrize("place", [0, 3, 12, 40, 90, 150, -200, -2, -1])
async def test_a_flipped_bit_in_the_manifest_is_found(
    store: MemoryStore, manifest: Manifest, place: int
) -> None:
    flip(store, MANIFEST, place)
    with pytest.raises((CheckpointCorrupt, FormatTooNew)):
        await verify(store, ID)


async def test_a_payload_says_which_image_it_was(store: MemoryStore, manifest: Manifest) -> None:
    flip_payload(store, manifest, 0)
    assert "stream-000, chunk 0 (part of inventory.img of c0): " in await damage(store)


CUTS: dict[str, Callable[[Manifest, int], int]] = {
    "nothing left": lambda _manifest, _size: 0,
    "in the header": lambda _manifest, _size: STREAM_HEADER_SIZE - 1,
    "after the header": lambda _manifest, _size: STREAM_HEADER_SIZE,
    "in a frame header": lambda _manifest, _size: STREAM_HEADER_SIZE + 1,
    "after a frame header": lambda _manifest, _size: STREAM_HEADER_SIZE + FRAME_HEADER_SIZE,
    "in a payload": lambda manifest, _size: first_frame_end(manifest, 0) - 1,
    "after a frame": lambda manifest, _size: first_frame_end(manifest, 0),
    "after the last frame": lambda _manifest, size: size - END_MARK_SIZE,
    "in the end mark": lambda _manifest, size: size - 1,
}


@pytest.mark.parametrize("cut", CUTS)
async def test_a_truncated_stream_is_never_whole(
    store: MemoryStore, manifest: Manifest, cut: str
) -> None:
    data = content(store, STREAM)
    replace(store, STREAM, data[: CUTS[cut](manifest, len(data))])
    assert "stream-000" in await damage(store)


async def test_a_stream_that_grew(store: MemoryStore, manifest: Manifest) -> None:
    data = content(store, STREAM)
    replace(store, STREAM, data + data[-END_MARK_SIZE:])
    assert f"{len(data) + END_MARK_SIZE} bytes" in await damage(store)


async def test_a_missing_stream_is_one_damage(store: MemoryStore, manifest: Manifest) -> None:
    store.delete(STREAM)
    assert await damage(store) == "stream-000 is missing"


async def test_swapped_streams(store: MemoryStore, manifest: Manifest) -> None:
    one, other = content(store, STREAM), content(store, f"{ID}/stream-001")
    replace(store, STREAM, other)
    replace(store, f"{ID}/stream-001", one)
    assert "belongs to another checkpoint or place" in await damage(store)


async def test_a_stream_of_another_checkpoint(store: MemoryStore, manifest: Manifest) -> None:
    write_checkpoint(store, IMAGES, checkpoint_id="twin", chunk_size=1 << 16)
    replace(store, STREAM, content(store, "twin/stream-000"))
    assert "belongs to another checkpoint or place" in await damage(store)


def rewrite(store: MemoryStore, change: Callable[[dict[str, object]], None], **head: int) -> None:
    """Change the manifest's body and seal it again."""
    _, _, body = content(store, MANIFEST).partition(b"\n")
    fields = json.loads(body)
    change(fields)
    body = json.dumps(fields).encode() + b"\n"
    envelope = {"format": 1, "bytes": len(body), "xxh3_128": digest(body).hex(), **head}
    replace(store, MANIFEST, json.dumps(envelope).encode() + b"\n" + body)


async def test_a_newer_format(store: MemoryStore, manifest: Manifest) -> None:
    rewrite(store, lambda fields: fields.update(novelty=1), format=3)
    with pytest.raises(FormatTooNew, match="format 3"):
        await verify(store, ID)


async def test_an_unknown_field(store: MemoryStore, manifest: Manifest) -> None:
    rewrite(store, lambda fields: fields.update(novelty=1))
    assert "novelty" in await damage(store)


async def test_frames_that_do_not_fill_their_stream(store: MemoryStore, manifest: Manifest) -> None:
    images = [
        image.model_copy(update={"size": 0, "pieces": []}) for image in manifest.members[0].images
    ]
    members = [manifest.members[0].model_copy(update={"images": images})]
    chunks = manifest.chunks[:-1]
    fewer = manifest.model_copy(update={"members": members, "chunks": chunks})
    replace(store, MANIFEST, to_bytes(fewer))
    stream = manifest.chunks[-1].stream
    found = await damage(store)
    frames = manifest.streams[stream].frames
    assert f"stream-{stream:03}: {frames - 1} chunks in {frames} frames" in found
    assert f"stream-{stream:03}: frames end at " in found


async def test_all_damage_is_told_up_to_a_limit(store: MemoryStore) -> None:
    count = MAX_DAMAGE + 7
    manifest = write_checkpoint(
        store, {"pages-1.img": random.Random(1).randbytes(count << 10)}, chunk_size=1 << 10
    )
    for number in range(count):
        flip_payload(store, manifest, number)
    found = await damage(store)
    assert found.count("part of pages-1.img") == MAX_DAMAGE
    assert found.endswith("; and 7 more")


async def test_a_store_that_fails_is_no_damage(manifest: Manifest) -> None:
    class Failing(MemoryStore):
        def read(self, path: str, offset: int, length: int) -> Data:
            if "stream" in path and length > STREAM_HEADER_SIZE:
                raise StoreFailed("read", self.url, "connection lost")
            return super().read(path, offset, length)

    store = Failing("failing")
    write_checkpoint(store, IMAGES)
    with pytest.raises(StoreFailed, match="connection lost"):
        await verify(store, ID)


async def test_cancelling_leaves_no_thread(manifest: Manifest) -> None:
    class Gated(MemoryStore):
        reached, gate = threading.Event(), threading.Event()

        def read(self, path: str, offset: int, length: int) -> Data:
            if "stream" in path and length > STREAM_HEADER_SIZE:
                self.reached.set()
                assert self.gate.wait(3600)
            return super().read(path, offset, length)

    store = Gated("gated")
    write_checkpoint(store, IMAGES)
    task = asyncio.create_task(verify(store, ID))
    try:
        assert await asyncio.to_thread(store.reached.wait, PATIENCE)
        task.cancel()
    finally:
        store.gate.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not [one for one in threading.enumerate() if one.name.startswith("verify")]


async def test_damage_everywhere_takes_no_longer_than_none(store: MemoryStore) -> None:
    """A lost stream of a large image has a million damaged chunks, each a part of something."""
    images = {"inventory.img": b"inventory", "pages-1.img": bytes(8_000 << 10)}
    write_checkpoint(store, images, chunk_size=1 << 10, compression="none", streams=1)
    began = time.process_time()
    await verify(store, ID)
    whole = time.process_time() - began
    size = store.size(STREAM)
    lost = bytearray(store.read(STREAM, 0, size))
    lost[STREAM_HEADER_SIZE:-END_MARK_SIZE] = bytes(size - STREAM_HEADER_SIZE - END_MARK_SIZE)
    replace(store, STREAM, bytes(lost))
    began = time.process_time()
    assert "and 7" in await damage(store)
    # 0.7 times; 24 times when each was looked up.
    assert time.process_time() - began < 6 * whole
