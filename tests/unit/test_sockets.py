"""Descriptors and exact numbers of bytes over unix sockets."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.host.sockets import listen, receive_descriptor, receive_exactly
from tests.waiting import descriptors, opened_since

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    here, there = socket.socketpair()
    with here, there:
        yield here, there


def test_not_one_byte_more(pair: Pair) -> None:
    here, there = pair
    there.sendall(b"abcdef")

    assert receive_exactly(here, 4) == b"abcd"
    assert receive_exactly(here, 0) == b""
    assert receive_exactly(here, 2) == b"ef"


def test_an_end_that_comes_too_early(pair: Pair) -> None:
    here, there = pair
    there.sendall(b"abc")
    there.close()

    with pytest.raises(EOFError):
        receive_exactly(here, 4)


def test_a_descriptor_comes_with_its_byte(pair: Pair) -> None:
    here, there = pair
    read, write = os.pipe()
    there.sendall(b"before")
    socket.send_fds(there, [b"\0"], [write])
    there.sendall(b"after")

    assert receive_exactly(here, 6) == b"before"
    received = receive_descriptor(here)
    assert receive_exactly(here, 5) == b"after"

    assert not os.get_inheritable(received)
    os.write(received, b"through")
    assert os.read(read, 100) == b"through"
    for descriptor in (read, write, received):
        os.close(descriptor)


def test_a_byte_without_a_descriptor(pair: Pair) -> None:
    here, there = pair
    there.sendall(b"\0")

    with pytest.raises(EOFError):
        receive_descriptor(here)


def test_no_byte_at_all(pair: Pair) -> None:
    here, there = pair
    there.close()

    with pytest.raises(EOFError):
        receive_descriptor(here)


def test_more_descriptors_than_one_are_not_taken(pair: Pair) -> None:
    """A peer that sends many does not fill the agent's table."""
    here, there = pair
    read, write = os.pipe()
    before = descriptors()
    socket.send_fds(there, [b"\0"], [write] * 20)

    received = receive_descriptor(here)

    assert len(descriptors()) <= len(before) + 2
    os.close(received)
    for descriptor in descriptors().keys() - before.keys():
        os.close(descriptor)
    os.close(read)
    os.close(write)


def test_listening_in_a_deep_directory(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 120)
    deep.mkdir()
    before = descriptors()

    with listen(deep, "x.sock"):
        assert (deep / "x.sock").is_socket()
        assert (deep / "x.sock").stat().st_mode & 0o777 == 0o600

    assert opened_since(before) == {}


def test_an_address_that_is_taken(tmp_path: Path) -> None:
    before = descriptors()
    with listen(tmp_path, "x.sock"), pytest.raises(OSError, match="Address already in use"):
        listen(tmp_path, "x.sock")

    assert opened_since(before) == {}
