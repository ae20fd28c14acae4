"""Fixtures for containers under the real runc; nothing of them outlives its test."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from bench.runc import RuncRoot, runc_root


@pytest.fixture
def runc() -> Iterator[RuncRoot]:
    """An empty runc root in a short path (unix sockets below it have 107 bytes)."""
    if os.geteuid() != 0:
        pytest.skip("containers need root")
    with runc_root() as root:
        yield root
