"""Waiting for what another thread or process is about to do, instead of sleeping for luck."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

# Seconds. Reached only when a test fails: two slow cores under load have been seen to need 5.
PATIENCE = 20.0


def eventually(condition: Callable[[], object], what: str = "the condition") -> None:
    """Return once ``condition()`` is true; fail when it does not become so."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come true within {PATIENCE} s"
        time.sleep(0.002)


def descriptors() -> dict[int, str]:
    """This process's open descriptors and what they lead to."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue  # the listing's own
    return found
