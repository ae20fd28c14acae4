"""Fixtures of all unit tests."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest
from hypothesis import HealthCheck, settings

from tests.api_rows import database
from tests.waiting import descriptors, eventually

__all__ = ["database", "stack"]

# How fast examples are found says something of the machine, and nothing of what is tested.
settings.register_profile("patient", suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """Closes what a test has opened, and shows that neither a thread nor a descriptor is left."""
    threads, open_before = set(threading.enumerate()), set(descriptors().items())

    def left() -> tuple[set[threading.Thread], set[tuple[int, str]]]:
        # What an earlier test has left to the collector may go while this one runs.
        return set(threading.enumerate()) - threads, set(descriptors().items()) - open_before

    with ExitStack() as opened:
        yield opened
    # One that was told to end may not have been let yet.
    with suppress(AssertionError):
        eventually(lambda: left() == (set(), set()))
    assert left() == (set(), set())
