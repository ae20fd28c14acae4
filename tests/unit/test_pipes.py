"""Writing into pipes: all of it, at the reader's pace, and never what was changed afterwards."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from fcntl import F_GETPIPE_SZ, fcntl

import pytest

from agent.host.pipes import USUAL_PIPE, WANTED_PIPE, PipeWriter, WriterClosed, prepare
from tests.fakes.criu_client import read_all
from tests.unit.threads import running
from tests.waiting import eventually

LENGTHS = [1, 4095, USUAL_PIPE, WANTED_PIPE - 1, WANTED_PIPE, WANTED_PIPE + 1, 3_000_001]


@pytest.fixture
def writer() -> Iterator[PipeWriter]:
    made = PipeWriter()
    yield made
    made.close()


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A prepared pipe: read end and write end."""
    read, write = os.pipe()
    prepare(write, 1 << 30)
    yield read, write
    for descriptor in (read, write):
        try:
            os.close(descriptor)
        except OSError:
            continue  # the test has closed it


def pattern(length: int) -> bytearray:
    return bytearray(random.Random(length).randbytes(length))


def test_a_pipe_grows_only_for_an_image_that_needs_it() -> None:
    for size, expected in ((USUAL_PIPE, USUAL_PIPE), (USUAL_PIPE + 1, WANTED_PIPE)):
        read, write = os.pipe()
        prepare(write, size)
        assert fcntl(write, F_GETPIPE_SZ) == expected
        os.close(read)
        os.close(write)


@pytest.mark.parametrize("length", LENGTHS)
def test_memory_may_be_reused_as_soon_as_pages_are_written(
    writer: PipeWriter, pipe: tuple[int, int], length: int
) -> None:
    """The reader begins late and is slow: what it reads is what was there when it was written."""
    read, write = pipe
    data = pattern(length)
    expected = bytes(data)

    def work() -> None:
        try:
            writer.write_pages(write, memoryview(data))
            data[:] = bytes(length)
        finally:
            os.close(write)

    with running(work):
        try:
            eventually(lambda: writer.written >= min(length, USUAL_PIPE))
        finally:
            # It waits for somebody to read.
            found = read_all(os.dup(read))
    assert found == expected
    assert writer.written == length


@pytest.mark.parametrize("length", LENGTHS)
def test_writing_now_writes_what_fits(
    writer: PipeWriter, pipe: tuple[int, int], length: int
) -> None:
    read, write = pipe
    data = bytes(pattern(length))
    written = writer.write_now(write, memoryview(data))
    assert written == min(length, WANTED_PIPE)
    assert writer.write_now(write, memoryview(b"more" * WANTED_PIPE)) <= WANTED_PIPE - written
    assert os.read(read, written) == data[:written]


@pytest.mark.parametrize("method", ["write", "write_pages"])
def test_a_reader_that_is_gone(writer: PipeWriter, pipe: tuple[int, int], method: str) -> None:
    read, write = pipe
    os.close(read)
    with pytest.raises(BrokenPipeError):
        getattr(writer, method)(write, memoryview(bytes(1 << 20)))


@pytest.mark.parametrize("method", ["write", "write_pages"])
def test_stopping_wakes_whoever_waits(
    writer: PipeWriter, pipe: tuple[int, int], method: str
) -> None:
    _, write = pipe
    outcome: list[str] = []

    def work() -> None:
        try:
            getattr(writer, method)(write, memoryview(bytes(1 << 20)))
        except WriterClosed:
            outcome.append("closed")

    with running(work):
        try:
            eventually(lambda: writer.written > 0)
        finally:
            writer.stop()
    assert outcome == ["closed"]
