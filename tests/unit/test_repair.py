"""Descriptors of other processes: each one that was taken is given back."""

from __future__ import annotations

import os
import socket

import pytest

from agent.host import repair
from tests.waiting import PATIENCE, descriptors, opened_since


def test_what_is_no_socket_is_closed() -> None:
    """As when a process has closed one since it was listed, and opened a file of that number."""
    descriptor = os.open("/dev/null", os.O_RDONLY)
    with pytest.raises(OSError, match="socket"):
        repair._socket(descriptor)
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(descriptor)


def test_nothing_is_kept() -> None:
    one, other = socket.socketpair()
    with one, other, socket.create_server(("127.0.0.1", 0)) as server:
        before = descriptors()
        assert repair.end_repair([os.getpid(), 999_999_999]) == 0
        assert opened_since(before) == {}
        # What listened still does.
        socket.create_connection(server.getsockname(), PATIENCE).close()
