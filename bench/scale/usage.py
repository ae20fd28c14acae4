"""What processes use: memory and processor time, as the kernel counts them."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import psutil

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Usage:
    """Of one kind of process, over a time: ``cores`` is 1.0 for one that was busy all the time."""

    cores: float
    resident_mib: float


@dataclass(frozen=True, slots=True)
class Meter:
    """Begins when made.

    Attributes:
        groups: processes, by what they are called.
        used, busy: seconds of a core that each of them, and the machine, had used before.
    """

    groups: Mapping[str, Sequence[psutil.Process]]
    began: float
    used: Mapping[str, float]
    busy: float

    @classmethod
    def start(cls, groups: Mapping[str, Sequence[psutil.Process]]) -> Meter:
        """Measure from now on."""
        used = {name: sum(map(_seconds, group)) for name, group in groups.items()}
        return cls(groups, time.monotonic(), used, _busy())

    def read(self) -> dict[str, Usage]:
        """What has been used since, and the memory that is held now."""
        passed = time.monotonic() - self.began
        return {
            name: Usage(
                (sum(map(_seconds, group)) - self.used[name]) / passed,
                sum(map(_resident, group)) / MIB,
            )
            for name, group in self.groups.items()
        }

    def others(self) -> float:
        """Cores that anything else on the machine has used since: how noisy it was."""
        ours = sum(
            sum(map(_seconds, group)) - self.used[name] for name, group in self.groups.items()
        )
        return (_busy() - self.busy - ours) / (time.monotonic() - self.began)


def children(name: str) -> list[psutil.Process]:
    """Child processes of this one that run a program."""
    return [each for each in psutil.Process().children() if each.name() == name]


def _seconds(process: psutil.Process) -> float:
    """Of it, of its children, and of those that it has waited for."""
    own = process.cpu_times()
    total = own.user + own.system
    # Our own children are all the others.
    if process.pid == os.getpid():
        return total
    total += own.children_user + own.children_system
    for child in process.children():
        with suppress(psutil.NoSuchProcess):
            its = child.cpu_times()
            total += its.user + its.system
    return total


def _busy() -> float:
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - times.iowait - times.guest - times.guest_nice)


def _resident(process: psutil.Process) -> int:
    return int(process.memory_info().rss)
