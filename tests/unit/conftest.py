"""Fixtures of all unit tests."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.api_rows import database

__all__ = ["database", "stack"]


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """Closes what a test has opened, and shows that neither a thread nor a descriptor is left."""
    threads = set(threading.enumerate())
    descriptors = os.listdir("/proc/self/fd")
    with ExitStack() as opened:
        yield opened
    assert set(threading.enumerate()) == threads
    assert os.listdir("/proc/self/fd") == descriptors
