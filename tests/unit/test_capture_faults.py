"""A capture whose CRIU lies, dies or is given up; nothing hangs, and nothing is left open."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.capture import pipeline
from agent.capture.buffers import Closed
from agent.capture.pipeline import CHUNK_SIZE
from agent.capture.streamer import LARGEST_REQUEST, Capture, ProtocolError
from agent.errors import StoreFailed
from agent.store.memory import MemoryStore
from tests.captures import Scene, dumping, scene
from tests.fakes.criu_dump import CriuDump, unread, write_all
from tests.fakes.slow_store import Gate, gated
from tests.fakes.stores import failing
from tests.pipelines import is_empty, threads
from tests.waiting import PATIENCE, descriptors, eventually, opened_since


def ended(made: Scene) -> None:
    """Wait for the end of the capture's thread, and see that it did not claim to be complete."""
    assert made.drained.wait(PATIENCE)
    eventually(lambda: "capture" not in threads(), "the end of the thread")
    assert not made.capture.complete


def refused(pipe: int) -> None:
    """CRIU's writes fail: it will not wait for a reader that is gone."""
    with pytest.raises(BrokenPipeError):
        write_all(pipe, bytes(1 << 21))


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        pytest.param(b"\x0a\x04../x", "an image named '../x'", id="parent"),
        pytest.param(b"\x0a\x02..", "an image named '..'", id="dots"),
        pytest.param(b"\x0a\x04/etc", "an image named '/etc'", id="absolute"),
        pytest.param(b"\x0a\x03a/b", "an image named 'a/b'", id="slash"),
        pytest.param(b"\x0a\x03a\0b", r"an image named 'a\\x00b'", id="NUL"),
        pytest.param(b"\x0a\x02a\n", r"an image named 'a\\n'", id="newline"),
        pytest.param(b"\x0a\x02-x", "an image named '-x'", id="option"),
        pytest.param(b"\x0a\x01\xff", "an image named", id="no unicode"),
        pytest.param(b"\x0a\x00", "an image named ''", id="empty name"),
        pytest.param(b"", "an image named ''", id="no name"),
        pytest.param(b"\x12\x01x", "an image named ''", id="another field"),
        pytest.param(b"\x08\x07", "an image named ''", id="number"),
        pytest.param(b"\x0a\x80\x02" + b"a" * 256, "an image named", id="256 letters"),
        pytest.param(b"\x0a\x05x", "malformed message", id="cut"),
        pytest.param(b"\xff" * 30, "malformed number", id="garbage"),
        pytest.param(b"\x0a\x8b\x4e" + b"a" * 9_995, "an image named", id="largest"),
    ],
)
def test_bad_requests_end_the_dump(tmp_path: Path, message: bytes, reason: str) -> None:
    assert len(message) <= LARGEST_REQUEST
    with dumping(tmp_path) as (made, criu):
        pipe = criu.open("a.img")
        criu.send_raw(message)
        ended(made)

        with pytest.raises(ProtocolError, match=reason):
            made.pipeline.raise_failure()
        refused(pipe)


@pytest.mark.parametrize("length", [LARGEST_REQUEST + 1, 1 << 20, 0xFFFF_FFFF])
def test_requests_that_are_too_long_are_not_even_read(tmp_path: Path, length: int) -> None:
    with dumping(tmp_path) as (made, criu):
        criu.connection.sendall(struct.pack("=I", length))
        ended(made)

        with pytest.raises(ProtocolError, match=f"a request of {length} bytes"):
            made.pipeline.raise_failure()


def no_descriptor(criu: CriuDump) -> None:
    criu.send("a.img")
    criu.connection.sendall(b"\0")


def half_a_length(criu: CriuDump) -> None:
    criu.connection.sendall(b"\x05\0")


def half_a_name(criu: CriuDump) -> None:
    criu.connection.sendall(struct.pack("=I", 7) + b"\x0a\x05a")


def no_pipe(criu: CriuDump) -> None:
    criu.send("a.img")


@pytest.mark.parametrize("last_words", [no_descriptor, half_a_length, half_a_name, no_pipe])
def test_a_criu_that_dies_in_the_middle_of_a_request(
    tmp_path: Path, last_words: Callable[[CriuDump], None]
) -> None:
    """Its exit status tells why; the pipeline has not failed."""
    with dumping(tmp_path) as (made, criu):
        criu.dump("whole.img", b"whole")
        last_words(criu)
        criu.connection.close()
        ended(made)

        made.pipeline.raise_failure()


def test_a_criu_that_dies_in_the_middle_of_an_image(tmp_path: Path) -> None:
    """What ends looks whole: that it is not is told by the hook that never comes."""
    with dumping(tmp_path) as (made, criu):
        pipe = criu.open("pages-1.img")
        os.write(pipe, b"half")
        criu.connection.close()
        criu.close(pipe)
        eventually(lambda: made.images._images, "the end of the image")

        assert not made.drained.is_set()
        made.capture.stop()
        assert not made.capture.complete


def test_a_connection_that_ends_before_the_last_pipe(tmp_path: Path) -> None:
    with dumping(tmp_path) as (made, criu):
        pipe = criu.open("pages-1.img")
        criu.connection.close()
        os.write(pipe, b"all of it")
        criu.close(pipe)

        assert made.stored() == {"pages-1.img": b"all of it"}


def idle(_made: Scene, _criu: CriuDump) -> None:
    """Connected, and no more."""


def in_an_image(made: Scene, criu: CriuDump) -> None:
    pipe = criu.open("pages-1.img")
    os.write(pipe, b"x")
    eventually(lambda: not unread(pipe), "an empty pipe")
    assert made.capture._pipes


def in_a_request(made: Scene, criu: CriuDump) -> None:
    half_a_name(criu)
    eventually(lambda: not _received(made), "a thread that waits for the rest")


def _received(made: Scene) -> int:
    """Bytes of requests that are not read yet."""
    assert made.capture._socket is not None
    return unread(made.capture._socket.fileno())


@pytest.mark.parametrize("moment", [idle, in_an_image, in_a_request])
def test_giving_up(tmp_path: Path, moment: Callable[[Scene, CriuDump], None]) -> None:
    before = descriptors()
    with dumping(tmp_path) as (made, criu):
        eventually(lambda: made.capture._connected, "a connection")
        moment(made, criu)

        made.capture.stop()

        ended(made)
        for pipe in criu._pipes:
            refused(pipe)
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            criu.send("next.img")
        with pytest.raises(Closed):
            made.pipeline.raise_failure()
        made.capture.stop()
    assert opened_since(before) == {}


def test_giving_up_before_criu_came(tmp_path: Path) -> None:
    """The pipeline can still be used: the dump is tried again without streaming."""
    before = descriptors()
    with scene(tmp_path) as made:
        made.capture.stop()

        made.pipeline.raise_failure()
        with pytest.raises(ConnectionRefusedError):
            CriuDump(tmp_path)
    assert opened_since(before) == {}


def test_giving_up_before_it_was_started(tmp_path: Path) -> None:
    before = descriptors()
    with scene(tmp_path, start=False):
        pass
    assert opened_since(before) == {}


def test_giving_up_while_storage_is_stuck(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread waits for memory that storage, which does not answer, will never give back."""
    monkeypatch.setattr(pipeline, "POOL_CHUNKS", pipeline.LEAST_CHUNKS)
    gate = Gate()
    stuck = gated(MemoryStore("stuck"), "write", gate)
    with scene(tmp_path, store=stuck, compression="none") as made, CriuDump(tmp_path) as criu:
        pipe = criu.open("pages-1.img")
        os.set_blocking(pipe, False)
        eventually(lambda: _fills(made, pipe), "a full pipe and an empty pool")

        made.capture.stop()

        ended(made)
        refused(pipe)
        gate.open()


def _fills(made: Scene, pipe: int) -> bool:
    """Write what fits; whether nobody takes any more."""
    try:
        os.write(pipe, bytes(CHUNK_SIZE))
    except BlockingIOError:
        return is_empty(made.pipeline)
    return False


def test_a_drain_that_comes_too_late(tmp_path: Path) -> None:
    """CRIU reaches its hook after all was given up: the answer is no, at once."""
    with dumping(tmp_path) as (made, criu):
        criu.dump("a.img", b"a")
        made.capture.stop()

        assert not made.drain()


def test_storage_that_fails_in_the_middle(tmp_path: Path) -> None:
    broken = failing(MemoryStore("broken"), "write", at=3)
    with dumping(tmp_path, store=broken) as (made, criu):
        pipe = criu.open("pages-1.img")
        refused_in_the_end(pipe)
        ended(made)

        with pytest.raises(StoreFailed):
            made.pipeline.raise_failure()
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            criu.send("next.img")


def refused_in_the_end(pipe: int) -> None:
    """Write incompressible bytes until the reader goes."""
    data = os.urandom(CHUNK_SIZE)
    with pytest.raises(BrokenPipeError):
        write_all(pipe, data * 200)


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    before = descriptors()
    with scene(tmp_path) as made, pytest.raises(FileNotFoundError):
        Capture(tmp_path / "nowhere", made.images, made.pipeline, on_drained=made.drained.set)
    assert opened_since(before) == {}


def test_an_address_that_is_taken(tmp_path: Path) -> None:
    before = descriptors()
    with scene(tmp_path) as made, pytest.raises(OSError, match="Address already in use"):
        Capture(tmp_path, made.images, made.pipeline, on_drained=made.drained.set)
    assert opened_since(before) == {}


def test_a_criu_that_has_nothing_to_say(tmp_path: Path) -> None:
    with dumping(tmp_path) as (made, criu):
        criu.connection.shutdown(socket.SHUT_WR)
        eventually(lambda: made.capture._socket is None, "the end of the conversation")

        assert made.stored() == {}
