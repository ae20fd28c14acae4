"""Tests for the machine of `make test-system` and nowhere else: they reconfigure it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.system.inside.node import HELD, LAB, Node, clear_up

# Set by the driver, which runs them in the machine. Everywhere else they are not there at all.
collect_ignore_glob = [] if os.environ.get("CHECKPOINT_AGENT_SYSTEM_TEST") == "1" else ["test_*.py"]


@pytest.fixture
def node() -> Iterator[Node]:
    """The machine, with the unit running as it was installed; what a test adds to it goes again."""
    made = Node()
    made.use_criu(None)
    made.start()
    LAB.path.mkdir(parents=True, exist_ok=True)
    try:
        yield made
    finally:
        HELD.release()
        clear_up()
