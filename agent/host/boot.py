"""Moments of one boot of this machine: what they tell, no change of the clock makes untrue."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from agent.host import process
from agent.targets import Birth

_BOOT = Path("/proc/sys/kernel/random/boot_id")


def boot_id() -> str:
    """Another one after each start of the machine."""
    return _BOOT.read_text().strip()


def birth_of(pid: int) -> Birth:
    """Which process has this pid now."""
    found = process.stat(pid) if pid > 0 else None
    return Birth(boot_id(), found.started if found is not None else 0)


@dataclass(frozen=True, slots=True)
class Moment:
    """How long which boot had lasted, in seconds; a suspended machine's boot goes on."""

    boot: str
    seconds: float

    @classmethod
    def now(cls) -> Moment:
        """This one."""
        return cls(boot_id(), time.clock_gettime(time.CLOCK_BOOTTIME))

    @property
    def is_of_this_boot(self) -> bool:
        """Whether anything that ran at that moment can run still."""
        return self.boot == boot_id()

    def is_before(self, pid: int) -> bool:
        """Whether a process began then or later; False when it has ended."""
        found = process.stat(pid)
        if found is None or found.state in "ZX" or not self.is_of_this_boot:
            return False
        # The kernel counts in whole ticks of 10 ms: it may have begun at the end of its own.
        return found.started + 1 > self.seconds * os.sysconf("SC_CLK_TCK")
