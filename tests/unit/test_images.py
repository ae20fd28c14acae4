"""Images on their way into chunks: from files, from memory, and how they share."""

from __future__ import annotations

import random
import threading
from pathlib import Path

import pytest

from agent.capture.buffers import RESERVED_CHUNKS, SharedPool
from agent.capture.images import SMALL_IMAGE, ImageSet
from agent.capture.pipeline import CHUNK_SIZE
from agent.store.memory import MemoryStore
from tests.fakes.slow_store import WrappedStore
from tests.pipelines import manifest, pipeline, read_images
from tests.waiting import PATIENCE

RANDOM = random.Random(3).randbytes(2 * CHUNK_SIZE + 7)


def test_a_directory_of_images(tmp_path: Path) -> None:
    """What CRIU wrote when it could not stream; nothing else of the directory."""
    images = {"core-1.img": b"c" * 700, "empty.img": b"", "pages-1.img": RANDOM}
    for name, data in images.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "dump.log").write_text("no image")
    (tmp_path / "descriptors.json").write_text("[]")
    store = MemoryStore("directory")
    with pipeline(store) as way:
        target = ImageSet(way)
        target.import_directory(tmp_path)
        found = target.complete()
        made = manifest(way.finish(), found)

    assert [image.name for image in found] == sorted(images)
    assert read_images(store, made) == images


@pytest.mark.parametrize("size", [0, 1, CHUNK_SIZE - 5, CHUNK_SIZE - 4, 2 * CHUNK_SIZE + 7])
def test_images_in_memory_share_chunks_of_any_size(size: int) -> None:
    store = MemoryStore("memory")
    with pipeline(store) as way:
        target = ImageSet(way)
        target.add("a.img", "criu", b"head")
        target.add("config.json", "bundle", RANDOM[:size])
        target.add("b.img", "criu", b"tail")
        found = target.complete()
        made = manifest(way.finish(), found)

    expected = {"a.img": b"head", "config.json": RANDOM[:size], "b.img": b"tail"}
    assert read_images(store, made) == expected
    assert [image.kind for image in found] == ["criu", "bundle", "criu"]
    assert len(made.chunks) == -(-(size + 8) // CHUNK_SIZE)


def test_only_large_images_have_chunks_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "a.img").write_bytes(RANDOM[:SMALL_IMAGE])
    (tmp_path / "b.img").write_bytes(RANDOM[: SMALL_IMAGE + 1])
    (tmp_path / "c.img").write_bytes(b"c")
    with pipeline(MemoryStore("large")) as way:
        target = ImageSet(way)
        target.import_directory(tmp_path)
        small, large, last = target.complete()
        way.finish()

    assert [piece.chunk for piece in small.pieces] == [piece.chunk for piece in last.pieces]
    assert {piece.chunk for piece in large.pieces}.isdisjoint(piece.chunk for piece in small.pieces)


def test_nothing() -> None:
    with pipeline(MemoryStore("nothing")) as way:
        assert ImageSet(way).complete() == []
        assert way.finish()[1] == []


MEMBERS, IMAGES = 4, 6


@pytest.mark.parametrize("staged", [False, True])
def test_members_that_hold_all_of_the_memory_half_filled(staged: bool) -> None:
    """Together they have as many large images open as there are buffers, and want to go on."""
    shared = SharedPool(CHUNK_SIZE) if staged else None
    if shared is not None:
        others = shared.lend()
        others.acquire()
    # A store whose writers need so much memory that the least is left for chunks.
    store = WrappedStore(MemoryStore("images"))
    everybody = threading.Barrier(MEMBERS)
    first, second = RANDOM[:300_001], RANDOM[: CHUNK_SIZE + 77]

    with pipeline(store, shared=shared) as way:
        assert way.pool.capacity == MEMBERS * IMAGES == RESERVED_CHUNKS

        def take(member: ImageSet) -> None:
            images = [member.incoming(f"pages-{number}.img") for number in range(IMAGES)]
            for image in images:
                image.write(first)
            everybody.wait(PATIENCE)
            member.add("small.img", "criu", b"small")
            for image in images:
                image.write(second)
            for image in images:
                member.finished(image)
            member.flush()

        members = [ImageSet(way) for _ in range(MEMBERS)]
        threads = [threading.Thread(target=take, args=(member,), daemon=True) for member in members]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        assert not any(thread.is_alive() for thread in threads), "they wait for each other"
        stored = way.finish()
    expected = {f"pages-{number}.img": first + second for number in range(IMAGES)}
    for member in members:
        images = read_images(store, manifest(stored, member.complete()))
        assert images == {**expected, "small.img": b"small"}
