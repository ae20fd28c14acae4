"""Waiting for what another thread or process is about to do, instead of sleeping for luck."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping

# Seconds. Reached only when a test fails, and less than a test may take. Two slow cores under load
# have been seen to need 5 for a message, and ten to fill a container of 4 GiB.
PATIENCE = 50.0

# Seconds between two looks.
_PERIOD = 0.005


def eventually(condition: Callable[[], object], what: str = "the condition") -> None:
    """Return once ``condition()`` is true; fail when it does not become so."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, _too_late(what)
        time.sleep(_PERIOD)


async def eventually_async(condition: Callable[[], object], what: str = "the condition") -> None:
    """The same while other tasks go on; ``condition`` may be a coroutine function as well."""
    limit = asyncio.timeout(PATIENCE)
    try:
        async with limit:
            while not await _is_so(condition):
                await asyncio.sleep(_PERIOD)
    except TimeoutError:
        # It may have been the condition's own.
        assert not limit.expired(), _too_late(what)
        raise


async def _is_so(condition: Callable[[], object]) -> bool:
    found = condition()
    return bool(await found if inspect.isawaitable(found) else found)


def _too_late(what: str) -> str:
    return f"{what} did not come true within {PATIENCE:.0f} s"


@contextlib.contextmanager
def meanwhile(work: Callable[[threading.Event], None]) -> Iterator[None]:
    """A thread at work while the block runs; it ends when the event that it is given is set."""
    over = threading.Event()
    thread = threading.Thread(target=work, args=[over])
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def descriptors() -> dict[int, str]:
    """This process's open descriptors and what they lead to."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue  # the listing's own
    return found


def opened_since(before: Mapping[int, str]) -> dict[int, str]:
    """Descriptors that there were not, or that lead elsewhere by now.

    What an earlier test has left to the collector, or to gRPC's threads, may go at any time.
    """
    return {number: to for number, to in descriptors().items() if before.get(number) != to}
