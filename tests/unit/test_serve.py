"""The image server against a CRIU that reads oddly, asks for nonsense, or dies."""

from __future__ import annotations

import os
import random
import socket
import stat
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from agent.errors import RestoreFailed
from agent.serve.server import REQUEST_LIMIT, SOCKET
from agent.store.base import Data
from agent.store.memory import MemoryStore
from tests.checkpoints import write_checkpoint
from tests.fakes.criu_client import CriuClient, read_all, read_in_thread
from tests.image_serving import CHUNK, LARGE, MIB, PAGES, SMALL, Serving, started
from tests.waiting import eventually


@pytest.fixture
def serving(stack: ExitStack, tmp_path: Path) -> Serving:
    return started(stack, Serving(tmp_path / "images"))


def test_every_image_of_criu_comes_back(serving: Serving) -> None:
    with CriuClient(serving.directory) as criu:
        for name, data in {**SMALL, **LARGE, **PAGES}.items():
            kind = serving.member.image(name)
            assert kind is not None
            pipe = criu.open(name)
            if kind.kind == "criu":
                assert pipe is not None
                assert read_all(pipe) == data
            else:
                assert pipe is None
    serving.server.wait()
    served = sum(image.size for image in serving.member.images if image.kind == "criu")
    assert serving.server.bytes_served == served


def test_an_unknown_image_does_not_exist_and_the_next_one_does(serving: Serving) -> None:
    with CriuClient(serving.directory) as criu:
        assert criu.open("memfd.img") is None
        assert criu.read("inventory.img") == b"inventory"


def test_only_the_members_own_images_are_served(stack: ExitStack, tmp_path: Path) -> None:
    serving = Serving(tmp_path / "images")
    serving.manifest = write_checkpoint(
        serving.store, {"core-1.img": b"1"}, {"core-2.img": b"2"}, checkpoint_id="two"
    )
    started(stack, serving)
    with CriuClient(serving.directory) as criu:
        assert not criu.exists("core-2.img")
        assert criu.read("core-1.img") == b"1"


def test_pages_read_by_several_tasks_at_the_same_time(serving: Serving) -> None:
    found: dict[int, bytes] = {}
    with CriuClient(serving.directory) as criu:
        pipes = {name: criu.open(name) for name in PAGES}
        threads = [read_in_thread(pipe, found) for pipe in pipes.values() if pipe is not None]
        for thread in threads:
            thread.join()
    for name, pipe in pipes.items():
        assert pipe is not None
        assert found[pipe] == PAGES[name]
        os.close(pipe)


@pytest.mark.parametrize("budget", [CHUNK, 4 * MIB])
def test_interleaved_reading(stack: ExitStack, tmp_path: Path, budget: int) -> None:
    serving = started(stack, Serving(tmp_path / "images"), budget=budget)
    order = random.Random(budget)
    found = dict.fromkeys(PAGES, b"")
    with CriuClient(serving.directory) as criu:
        pipes = {name: criu.open(name) for name in PAGES}
        while pipes:
            name = order.choice(list(pipes))
            pipe = pipes[name]
            assert pipe is not None
            part = os.read(pipe, order.choice([1, 4096, 300_000]))
            found[name] += part
            if not part:
                os.close(pipe)
                del pipes[name]
    assert found == PAGES


def test_a_reader_that_does_not_read_stops_no_other(serving: Serving) -> None:
    """As CRIU does: pages are opened before the pagemap is read, and left for later."""
    with CriuClient(serving.directory) as criu:
        later = {name: criu.open(name) for name in ("pages-1.img", "pages-2.img", "pagemap-1.img")}
        assert criu.read("pages-3.img") == PAGES["pages-3.img"]
        assert criu.read("core-1.img") == SMALL["core-1.img"]
        for name in reversed(later):
            pipe = later[name]
            assert pipe is not None
            assert read_all(pipe) == {**SMALL, **PAGES}[name]


def test_memory_stays_within_the_budget_when_nobody_reads(stack: ExitStack, tmp_path: Path) -> None:
    serving = started(stack, Serving(tmp_path / "images"), budget=CHUNK)
    limit = CHUNK + len(PAGES) * CHUNK
    seen = []
    with CriuClient(serving.directory) as criu:
        pipes = [criu.open(name) for name in PAGES]
        # Every pipe is full, and every writer has its next chunk: nothing moves any more.
        eventually(lambda: serving.server.bytes_served >= len(PAGES) * (1 << 16))
        for pipe in pipes:
            assert pipe is not None
            while os.read(pipe, 50_000):
                seen.append(serving.prefetch.held)
            os.close(pipe)
    assert 0 < max(seen) <= limit


def test_criu_dies_half_way(serving: Serving) -> None:
    with CriuClient(serving.directory) as criu:
        pipes = [criu.open(name) for name in ("pages-1.img", "pagemap-1.img", *LARGE)]
        for pipe in pipes:
            assert pipe is not None
            os.read(pipe, 100)
            os.close(pipe)
    serving.server.wait()


def test_criu_dies_between_the_answer_and_the_pipe(serving: Serving) -> None:
    with CriuClient(serving.directory) as criu:
        assert criu.exists("pages-1.img")
    serving.server.wait()


@pytest.mark.parametrize("sent", [b"\x05", b"\x05\0\0\0", b"\x05\0\0\0\x0a\x03a"])
def test_criu_dies_in_the_middle_of_a_request(serving: Serving, sent: bytes) -> None:
    with CriuClient(serving.directory) as criu:
        criu.connection.sendall(sent)
    serving.server.wait()


class Nonsense(CriuClient):
    """A CRIU that asks for what no CRIU would."""

    def __init__(self, images_dir: Path, message: bytes) -> None:
        super().__init__(images_dir)
        self._message = message

    def request(self, name: str) -> bytes:
        return self.framed(self._message)


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\x0a\x00",
        b"\x0a\x03a/b",
        b"\x0a\x02..",
        b"\x0a\x0cinventory.\xff\xff",
        b"\x0a\x0einventory.img\n",
        b"\x0a\x7fshort",
        b"\x08\x01",
        b"\xff" * 20,
        b"\x0a\x80\x02" + b"a" * 256,
    ],
)
def test_nonsense_ends_the_connection(serving: Serving, message: bytes) -> None:
    with Nonsense(serving.directory, message) as criu, pytest.raises(EOFError):
        criu.exists("inventory.img")
    with pytest.raises(RestoreFailed, match="CRIU sent a"):
        serving.server.wait()


@pytest.mark.parametrize("length", [REQUEST_LIMIT, 0xFFFFFFFF])
def test_an_oversized_request_is_refused_by_its_length(serving: Serving, length: int) -> None:
    with CriuClient(serving.directory) as criu:
        criu.connection.sendall(length.to_bytes(4, "little"))
        assert criu.connection.recv(1) == b""
    with pytest.raises(RestoreFailed, match=f"a request of {length} bytes"):
        serving.server.wait()


def test_something_other_than_a_pipe_is_refused(serving: Serving, tmp_path: Path) -> None:
    class WithFile(CriuClient):
        def pipe(self) -> int:
            with open(tmp_path / "file", "wb") as file:
                socket.send_fds(self.connection, [b"\0"], [file.fileno()])
            return -1

    with WithFile(serving.directory) as criu:
        criu.open("pages-1.img")
        assert criu.connection.recv(1) == b""
    with pytest.raises(RestoreFailed, match="other than a pipe"):
        serving.server.wait()


def test_there_is_one_connection(serving: Serving) -> None:
    with CriuClient(serving.directory) as criu:
        assert criu.read("inventory.img") == b"inventory"
        assert not (serving.directory / SOCKET).exists()


def test_a_directory_deeper_than_a_socket_path_may_be(stack: ExitStack, tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["directory" * 5] * 5)
    serving = started(stack, Serving(deep))
    assert len(str(deep)) > 108
    mode = (deep / SOCKET).stat().st_mode
    assert stat.S_IMODE(mode) == 0o600
    with CriuClient(deep) as criu:
        assert criu.read("inventory.img") == b"inventory"
    serving.server.wait()


def test_a_directory_that_is_not_there(stack: ExitStack, tmp_path: Path) -> None:
    serving = Serving(tmp_path / "images")
    serving.directory = tmp_path / "missing"
    with pytest.raises(RestoreFailed, match="cannot listen"):
        started(stack, serving)
    serving.server.close()


def test_closed_before_criu_came(serving: Serving) -> None:
    serving.server.close()
    serving.server.close()
    assert not (serving.directory / SOCKET).exists()
    serving.server.check()


def test_closed_while_everything_is_stuck(serving: Serving) -> None:
    with CriuClient(serving.directory) as criu:
        pipes = [criu.open(name) for name in [*PAGES, *LARGE, "pagemap-1.img"]]
        serving.server.close()
        for pipe in pipes:
            assert pipe is not None
            os.close(pipe)


def test_a_large_image_that_is_given_up_is_not_read_to_its_end(
    stack: ExitStack, tmp_path: Path
) -> None:
    store = _Counting("counting")
    serving = started(stack, Serving(tmp_path / "large", store=store), budget=CHUNK)
    (name,) = LARGE
    with CriuClient(serving.directory) as criu:
        store.begun.clear()
        store.reads = 0
        pipe = criu.open(name)
        assert pipe is not None
        assert store.begun.wait(20)
        serving.server.close()
        os.close(pipe)
    assert store.reads < len(serving.member_image(name))


class _Counting(MemoryStore):
    """It takes its time for each read."""

    reads = 0

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.begun = threading.Event()

    def read(self, path: str, offset: int, length: int) -> Data:
        self.reads += 1
        self.begun.set()
        time.sleep(0.05)
        return super().read(path, offset, length)


def test_hanging_up_ends_pages_and_answers_but_no_other_image(serving: Serving) -> None:
    with CriuClient(serving.directory) as criu:
        pages, other = criu.open("pages-1.img"), criu.open("tmpfs-1.tar.gz.img")
        assert pages is not None
        assert other is not None
        eventually(lambda: serving.server.bytes_served > 0)
        serving.server.hang_up()
        assert len(read_all(pages)) < len(PAGES["pages-1.img"])
        with pytest.raises(EOFError):
            criu.exists("inventory.img")
        # Its end would say that it is whole.
        assert not ended(other)
    serving.server.close()
    assert ended(other)
    os.close(other)


def ended(pipe: int) -> bool:
    """Empty a pipe; whether nobody can write to it any more."""
    os.set_blocking(pipe, False)
    try:
        while os.read(pipe, MIB):
            pass
    except BlockingIOError:
        return False
    return True
