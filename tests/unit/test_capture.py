"""The dump side of CRIU's streaming: everything that CRIU writes is in the store afterwards."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from agent.capture.images import SMALL_IMAGE
from agent.capture.pipeline import CHUNK_SIZE, POOL_CHUNKS
from agent.store.memory import MemoryStore
from tests.captures import dumping, scene
from tests.fakes.criu_dump import CriuDump, unread, write_all
from tests.fakes.slow_store import Gate, gated
from tests.pipelines import is_empty
from tests.unit.threads import running
from tests.waiting import descriptors, eventually, opened_since

RANDOM = random.Random(2).randbytes(3 * CHUNK_SIZE + 5)

# In the order of a real dump: the inventory comes last, and of the images only pages are large.
IMAGES = {
    "seccomp.img": b"s" * 8,
    "files.img": b"files" * 300,
    "ids-1.img": b"i" * 44,
    "fdinfo-2.img": b"f" * 60,
    "pagemap-1.img": b"p" * 4000,
    "pages-1.img": RANDOM,
    "core-1.img": b"c" * 700,
    "mm-1.img": b"m" * 900,
    "pstree.img": b"t" * 40,
    "inventory.img": b"v" * 90,
}


def test_a_whole_dump(tmp_path: Path) -> None:
    with dumping(tmp_path) as (made, criu):
        for name, data in IMAGES.items():
            criu.dump(name, data)

        assert made.stored() == IMAGES


def test_nothing_is_lost_of_what_came_before_the_agent_looked(tmp_path: Path) -> None:
    """Requests and descriptors back to back: reading a byte too many would lose a descriptor."""
    small = {name: data for name, data in IMAGES.items() if name != "pages-1.img"}
    with scene(tmp_path, start=False) as made, CriuDump(tmp_path) as criu:
        for name, data in small.items():
            criu.dump(name, data)
        made.capture.drain()
        made.capture.start()

        assert made.stored() == small


def test_images_that_are_written_in_turns(tmp_path: Path) -> None:
    with dumping(tmp_path) as (made, criu):
        pipes = {name: criu.open(name) for name in ("a.img", "b.img", "c.img")}
        for part in range(10):
            for name, pipe in pipes.items():
                os.write(pipe, f"{name} {part};".encode())
        for name in ("b.img", "c.img", "a.img"):
            criu.close(pipes[name])

        expected = {
            name: "".join(f"{name} {part};" for part in range(10)).encode() for name in pipes
        }
        assert made.stored() == expected


def test_pages_while_other_images_are_open(tmp_path: Path) -> None:
    with dumping(tmp_path) as (made, criu):
        pagemap = criu.open("pagemap-1.img")
        os.write(pagemap, b"begin ")
        criu.dump("pages-1.img", RANDOM)
        os.write(pagemap, b"end")
        criu.close(pagemap)

        assert made.stored() == {"pages-1.img": RANDOM, "pagemap-1.img": b"begin end"}


@pytest.mark.parametrize(
    "size",
    [
        *(0, 1, SMALL_IMAGE - 1, SMALL_IMAGE, SMALL_IMAGE + 1),
        *(CHUNK_SIZE - 1, CHUNK_SIZE, CHUNK_SIZE + 1, len(RANDOM)),
    ],
)
def test_images_of_any_size(tmp_path: Path, size: int) -> None:
    with dumping(tmp_path) as (made, criu):
        criu.dump("it.img", RANDOM[:size])
        criu.dump("next.img", b"next")

        assert made.stored() == {"it.img": RANDOM[:size], "next.img": b"next"}


def test_writers_that_trickle(tmp_path: Path) -> None:
    """A chunk is filled up whatever the sizes that come out of the pipe."""
    with dumping(tmp_path) as (made, criu):
        pipe = criu.open("pages-1.img")
        for at in range(0, len(RANDOM), 65_537):
            write_all(pipe, RANDOM[at : at + 65_537])
            eventually(lambda: not unread(pipe), "an empty pipe")
        criu.close(pipe)

        assert made.stored() == {"pages-1.img": RANDOM}
        assert made.pipeline.chunks == 4


def test_a_dump_of_nothing(tmp_path: Path) -> None:
    with dumping(tmp_path) as (made, _):
        assert made.stored() == {}


def test_small_images_share_chunks(tmp_path: Path) -> None:
    images = {f"core-{number}.img": b"%d" % number for number in range(200)}
    with dumping(tmp_path) as (made, criu):
        for name, data in images.items():
            criu.dump(name, data)

        assert made.stored() == images
        assert made.pipeline.chunks == 1


def test_nothing_is_drained_while_a_pipe_is_open(tmp_path: Path) -> None:
    """CRIU is held meanwhile: the pages in the pipe are the frozen tasks' own."""
    with dumping(tmp_path) as (made, criu):
        pipe = criu.open("pages-1.img")
        made.capture.drain()
        for _ in range(3):
            os.write(pipe, RANDOM[:1000])
            eventually(lambda: not unread(pipe), "an empty pipe")
            assert not made.drained.is_set()
        criu.close(pipe)

        assert made.drain()
        assert made.stored() == {"pages-1.img": RANDOM[:1000] * 3}


def test_nothing_is_drained_while_bytes_wait_for_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Storage is stuck and the pool empty: what is left in the pipe keeps the tasks frozen."""
    gate, total = Gate(), POOL_CHUNKS + 20
    with (
        scene(
            tmp_path, store=gated(MemoryStore("stuck"), "write", gate), compression="none"
        ) as made,
        CriuDump(tmp_path) as criu,
        running(criu.dump, "pages-1.img", RANDOM[:CHUNK_SIZE] * total) as writer,
        gate,
    ):
        eventually(lambda: is_empty(made.pipeline), "an empty pool")
        made.capture.drain()
        assert not made.drained.is_set()
        assert made.pipeline.chunks < total

        gate.open()
        writer.join()
        images = made.stored()
    assert images == {"pages-1.img": RANDOM[:CHUNK_SIZE] * total}


def test_more_may_come_after_a_first_drain(tmp_path: Path) -> None:
    with dumping(tmp_path) as (made, criu):
        criu.dump("a.img", b"a")
        assert made.drain()
        criu.dump("b.img", b"b")
        eventually(lambda: len(made.images._images) == 2, "the second image")

        assert made.stored() == {"a.img": b"a", "b.img": b"b"}


def test_directories_of_any_depth(tmp_path: Path) -> None:
    """A socket's path has 107 bytes; the state directory is the user's to choose."""
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    with dumping(deep) as (made, criu):
        criu.dump("a.img", b"a")

        assert made.stored() == {"a.img": b"a"}


def test_only_root_may_connect_and_only_once(tmp_path: Path) -> None:
    with dumping(tmp_path) as (made, criu):
        assert (tmp_path / "streamer-capture.sock").stat().st_mode & 0o777 == 0o600
        criu.dump("a.img", b"a")
        eventually(lambda: made.images._images, "the first image")
        with pytest.raises(ConnectionRefusedError):
            CriuDump(tmp_path)

        assert made.stored() == {"a.img": b"a"}


def test_nothing_of_it_stays_open(tmp_path: Path) -> None:
    before = descriptors()

    with dumping(tmp_path) as (made, criu):
        for name, data in IMAGES.items():
            criu.dump(name, data)
        made.stored()

    assert opened_since(before) == {}
