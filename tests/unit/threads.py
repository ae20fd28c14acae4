"""Threads of a test that end with it, also when it fails."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.waiting import PATIENCE


@contextmanager
def running(target: Callable[..., object], *arguments: object) -> Iterator[threading.Thread]:
    """A thread for a block, which has to leave it nothing to wait for, whatever fails in it.

    One that does not end all the same fails the test, and does not keep the interpreter.
    """
    thread = threading.Thread(target=target, args=arguments, daemon=True)
    thread.start()
    try:
        yield thread
    finally:
        thread.join(PATIENCE)
        assert not thread.is_alive(), "it does not end"
