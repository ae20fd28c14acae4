"""What the workloads tell: 64-bit slots in a file of their root filesystem, read while they run."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

SLOT = struct.Struct("<Q")
READY, MAGIC = 0, 0x5452504552

# Seconds. Filling 4 GiB on a loaded two-core machine takes about ten.
PATIENCE = 50.0


class Counter(IntEnum):
    """counter.c: counts; the largest gap between two ticks since the last RESET."""

    TICKS = 1
    GAP_NS = 2
    GAP_AT_NS = 3
    RESET = 4
    RESET_DONE = 5
    RESUMES = 6
    RESUMED_FROM = 7


class Generations(IntEnum):
    """generations.c: how many pages it rewrites, how often it has, what it found wrong."""

    PAGES = 1
    GENERATION = 2
    ERRORS = 3


class Exchange(IntEnum):
    """exchange.c: the number it has now, and how often it was not the next one."""

    NUMBER = 1
    SKIPPED = 2


class Segment(IntEnum):
    """segment.c: how far all that share its segment have counted together."""

    COUNT = 1


class Memory(IntEnum):
    """memory.c: how much it holds; answers a new number in VERIFY."""

    BYTES = 1
    CHECKSUM = 2
    VERIFY = 3
    VERIFIED = 4
    FAILURES = 5


class Family(IntEnum):
    """family.c: laps of the token; answers a new number in PROBE. HOPS is the first of five."""

    LAPS = 1
    ERRORS = 2
    LISTEN_PORT = 3
    PROBE = 4
    PROBED = 5
    ECHOES = 6
    HOPS = 7


class Service(IntEnum):
    """service.c: what became of its clients; its own laps as a client; a connection it makes."""

    ACCEPTED = 1
    ENDED = 2
    BROKEN = 3
    LAPS = 4
    ERRORS = 5
    HOLD = 6
    HELD = 7
    DIAL = 8
    DIALS = 9
    DIALED = 10
    TO_ADDRESS = 11
    TO_PORT = 12


class Stalled(Exception):
    """A workload did not do in time what it was waited for."""


def wait_until(condition: Callable[[], bool], what: str, *, timeout: float = PATIENCE) -> None:
    """Poll ``condition`` every 5 ms until it holds.

    Raises:
        Stalled: it did not within ``timeout`` seconds.
    """
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise Stalled(f"{what}: not within {timeout:.0f} s")
        time.sleep(0.005)


@dataclass(frozen=True, slots=True)
class Report:
    """One workload's report page, seen from the host."""

    path: Path

    def read(self, slot: int) -> int:
        """The number in ``slot`` now."""
        with self.path.open("rb") as page:
            return int(SLOT.unpack(os.pread(page.fileno(), SLOT.size, slot * SLOT.size))[0])

    def write(self, slot: int, value: int) -> None:
        """Put a number into ``slot``; the workload sees it at once."""
        with self.path.open("r+b") as page:
            os.pwrite(page.fileno(), SLOT.pack(value), slot * SLOT.size)

    def ready(self) -> bool:
        """Whether the workload has set itself up."""
        return self.path.exists() and self.path.stat().st_size > 0 and self.read(READY) == MAGIC

    def wait_ready(self, *, timeout: float = PATIENCE) -> None:
        """Wait until the workload has set itself up, or raise Stalled."""
        wait_until(self.ready, f"{self.path.name} getting ready", timeout=timeout)

    def wait_beyond(self, slot: int, value: int, *, timeout: float = PATIENCE) -> int:
        """Wait until ``slot`` is more than ``value`` (it may be less first); what it is then."""
        wait_until(lambda: self.read(slot) > value, f"{self.path.name} passing {value}",
                   timeout=timeout)  # fmt: skip
        return self.read(slot)

    def ask(self, request: int, answer: int, *, timeout: float = PATIENCE) -> None:
        """Put a new number into slot ``request`` and wait until slot ``answer`` shows it too."""
        number = self.read(request) + 1
        self.write(request, number)
        wait_until(lambda: self.read(answer) == number, f"{self.path.name} answering",
                   timeout=timeout)  # fmt: skip
