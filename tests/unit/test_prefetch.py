"""Reading ahead: in order, in parallel, within a budget, and never in each other's way."""

from __future__ import annotations

import random
import threading
from contextlib import ExitStack

import pytest

from agent.errors import CheckpointCorrupt, StoreFailed
from agent.manifest import Image, Manifest
from agent.serve.prefetch import Prefetch, Stopped, is_streamed
from agent.serve.readahead import Schedule
from agent.store.base import Data
from agent.store.memory import MemoryStore
from tests.checkpoints import flip_payload, write_checkpoint
from tests.unit.threads import running
from tests.waiting import PATIENCE, eventually

CHUNK = 1 << 16
PAGES = {
    f"pages-{at}.img": random.Random(at).randbytes(64) * (10 * CHUNK // 64) for at in (1, 2, 3)
}
SMALL = {f"core-{at}.img": b"%d" % at * 100 for at in range(20)}


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore("prefetch")


@pytest.fixture
def manifest(store: MemoryStore) -> Manifest:
    return write_checkpoint(store, {**SMALL, **PAGES}, chunk_size=CHUNK)


def prefetch(
    stack: ExitStack, store: MemoryStore, manifest: Manifest, budget: int = 8 * CHUNK
) -> Prefetch:
    made = Prefetch(store, manifest, manifest.members[0].images, budget=budget, workers=2)
    stack.callback(made.close)
    made.start()
    return made


def image(manifest: Manifest, name: str) -> Image:
    found = manifest.members[0].image(name)
    assert found is not None
    return found


def test_pages_are_streamed_and_small_images_are_not(manifest: Manifest) -> None:
    streamed = {one.name for one in manifest.members[0].images if is_streamed(one)}
    assert streamed == PAGES.keys()


def test_images_come_in_order(stack: ExitStack, store: MemoryStore, manifest: Manifest) -> None:
    reading = prefetch(stack, store, manifest)
    for name in ("pages-3.img", "pages-1.img", "pages-2.img"):
        with reading.open(image(manifest, name)) as pieces:
            assert b"".join(pieces) == PAGES[name]
    for name, data in SMALL.items():
        assert reading.whole(image(manifest, name)) == data


def test_an_image_can_be_read_again(
    stack: ExitStack, store: MemoryStore, manifest: Manifest
) -> None:
    reading = prefetch(stack, store, manifest)
    for _ in range(2):
        with reading.open(image(manifest, "pages-1.img")) as pieces:
            assert b"".join(pieces) == PAGES["pages-1.img"]


@pytest.mark.parametrize("budget", [1, CHUNK, 3 * CHUNK, 1 << 30])
def test_interleaved_readers_never_starve(
    stack: ExitStack, store: MemoryStore, manifest: Manifest, budget: int
) -> None:
    reading = prefetch(stack, store, manifest, budget)
    sources = {name: stack.enter_context(reading.open(image(manifest, name))) for name in PAGES}
    found = dict.fromkeys(PAGES, b"")
    order = random.Random(budget)
    while sources:
        name = order.choice(list(sources))
        piece = next(sources[name], None)
        if piece is None:
            del sources[name]
        else:
            found[name] += piece
    assert found == PAGES


def test_an_image_nobody_reads_stops_no_other(
    stack: ExitStack, store: MemoryStore, manifest: Manifest
) -> None:
    reading = prefetch(stack, store, manifest, 2 * CHUNK)
    stuck = stack.enter_context(reading.open(image(manifest, "pages-1.img")))
    next(stuck)
    with reading.open(image(manifest, "pages-2.img")) as pieces:
        assert b"".join(pieces) == PAGES["pages-2.img"]


def test_a_reader_that_leaves_gives_its_memory_back(
    stack: ExitStack, store: MemoryStore, manifest: Manifest
) -> None:
    reading = prefetch(stack, store, manifest)
    for name in PAGES:
        with reading.open(image(manifest, name)) as pieces:
            next(pieces)
    # In flight pieces come back by and by.
    eventually(lambda: reading.held == 0)


def test_shared_chunks_are_read_before_anybody_asks(stack: ExitStack) -> None:
    class Noting(MemoryStore):
        read_chunks = 0

        def read(self, path: str, offset: int, length: int) -> Data:
            self.read_chunks += "stream" in path
            return super().read(path, offset, length)

    store = Noting("noting")
    manifest = write_checkpoint(store, SMALL)
    reading = prefetch(stack, store, manifest)
    eventually(lambda: store.read_chunks == 1)
    assert [reading.whole(one) for one in manifest.members[0].images] == list(SMALL.values())
    assert store.read_chunks == 1


def test_the_first_error_reaches_every_reader(
    stack: ExitStack, store: MemoryStore, manifest: Manifest
) -> None:
    last = image(manifest, "pages-2.img").pieces[-1].chunk
    flip_payload(store, manifest, last)
    reading = prefetch(stack, store, manifest)
    with (
        reading.open(image(manifest, "pages-2.img")) as pieces,
        pytest.raises(CheckpointCorrupt, match=f"chunk {last} "),
    ):
        list(pieces)
    with reading.open(image(manifest, "pages-1.img")) as pieces, pytest.raises(CheckpointCorrupt):
        list(pieces)


def test_a_store_that_fails_is_told_as_it_was(stack: ExitStack) -> None:
    class Failing(MemoryStore):
        def read(self, path: str, offset: int, length: int) -> Data:
            if offset > 4 * CHUNK:
                raise StoreFailed("read", self.url, "connection lost")
            return super().read(path, offset, length)

    store = Failing("failing")
    manifest = write_checkpoint(store, PAGES, compression="none", chunk_size=CHUNK)
    reading = prefetch(stack, store, manifest)
    with (
        reading.open(image(manifest, "pages-1.img")) as pieces,
        pytest.raises(StoreFailed, match="connection lost"),
    ):
        list(pieces)


def test_closing_wakes_a_reader_that_waits(stack: ExitStack) -> None:
    class Stuck(MemoryStore):
        gate = threading.Event()

        def read(self, path: str, offset: int, length: int) -> Data:
            assert self.gate.wait(3600)
            return super().read(path, offset, length)

    store = Stuck("stuck")
    manifest = write_checkpoint(store, PAGES, chunk_size=CHUNK)
    reading = prefetch(stack, store, manifest)
    outcome: list[str] = []

    def consume() -> None:
        with reading.open(image(manifest, "pages-1.img")) as pieces:
            try:
                next(pieces)
            except Stopped:
                outcome.append("stopped")

    consumer = stack.enter_context(running(consume))
    # Before it is closed, which waits for whoever reads.
    stack.callback(store.gate.set)
    reading.stop()
    consumer.join(PATIENCE)
    assert outcome == ["stopped"]


def test_one_that_was_never_started_can_be_closed(store: MemoryStore, manifest: Manifest) -> None:
    Prefetch(store, manifest, manifest.members[0].images).close()


@pytest.mark.parametrize("seed", range(20))
def test_the_budget_holds_whatever_the_order(manifest: Manifest, seed: int) -> None:
    """Random openings, readings and droppings: bounded, in order, and nothing waits for ever."""
    chance = random.Random(seed)
    budget = chance.choice([0, 1, 3, 6]) * CHUNK
    images = [one for one in manifest.members[0].images if is_streamed(one)]
    schedule = Schedule(manifest.chunks, images, budget)
    opened = {one.name: schedule.open(one) for one in chance.sample(images, len(images))}
    outstanding: dict[str, list[int]] = {name: [] for name in opened}
    done = dict.fromkeys(opened, 0)
    while any(done[name] < 10 for name in opened):
        while job := schedule.pick():
            outstanding[job.queue.image.name].append(job.piece)
        assert schedule.held <= budget + len(images) * CHUNK
        for name in opened:
            assert outstanding[name] or done[name] == 10
        name = chance.choice([name for name in opened if outstanding[name]])
        piece = outstanding[name].pop(0)
        assert piece == done[name]
        done[name] += 1
        schedule.give_back(opened[name], piece)
    assert schedule.held == 0


def test_images_nobody_asked_for_leave_half_of_the_budget(manifest: Manifest) -> None:
    images = [one for one in manifest.members[0].images if is_streamed(one)]
    schedule = Schedule(manifest.chunks, images, 8 * CHUNK)
    while schedule.pick():
        pass
    assert schedule.held == 4 * CHUNK
    last = schedule.open(images[-1])
    jobs = []
    while job := schedule.pick():
        jobs.append(job)
    assert [job.piece for job in jobs] == [0, 1, 2, 3]
    assert all(job.queue is last for job in jobs)
