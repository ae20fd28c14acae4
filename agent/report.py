"""What an operation tells while it runs and afterwards: progress, phase times, results."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Update:
    """Progress of one operation.

    Bytes count from its start; ``bytes_total`` is None when unknown.
    """

    phase: str
    bytes_raw: int = 0
    bytes_stored: int = 0
    bytes_total: int | None = None


# Called from the event loop's thread, at most a few times a second; must return quickly.
Observer = Callable[[Update], None]


def ignore(_update: Update) -> None:
    """The observer for those who do not watch."""


@asynccontextmanager
async def watched(observer: Observer, progress: Callable[[], Update]) -> AsyncIterator[None]:
    """Tell the observer five times a second while the block runs, and once at its end."""

    async def tell() -> None:
        while True:
            observer(progress())
            await asyncio.sleep(0.2)

    telling = asyncio.create_task(tell())
    try:
        yield
    finally:
        telling.cancel()
        observer(progress())


@dataclass(slots=True)
class Phases:
    """Seconds per phase, on an injectable clock, with the rest that no phase claims."""

    now: Callable[[], float] = time.monotonic
    seconds: dict[str, float] = field(default_factory=dict)
    started: float = field(init=False)

    def __post_init__(self) -> None:
        self.started = self.now()

    @contextmanager
    def measure(self, phase: str) -> Iterator[None]:
        """Add the time spent in the block to ``phase``, also when it raises."""
        begin = self.now()
        try:
            yield
        finally:
            self.add(phase, self.now() - begin)

    def add(self, phase: str, seconds: float) -> None:
        """Add ``seconds`` to ``phase``."""
        self.seconds[phase] = self.seconds.get(phase, 0.0) + seconds

    def wall(self) -> float:
        """Seconds since the operation began."""
        return self.now() - self.started

    def summary(self) -> dict[str, float]:
        """All phases and ``unaccounted``, rounded to microseconds; phases do not overlap."""
        unaccounted = max(0.0, self.wall() - sum(self.seconds.values()))
        return {
            name: round(value, 6)
            for name, value in {**self.seconds, "unaccounted": unaccounted}.items()
        }


@dataclass(frozen=True, slots=True)
class Captured:
    """A checkpoint when all its members run again, and all of it is in the agent's memory or store.

    ``frozen_seconds`` is how long they did not run, ``cuda_seconds`` the part of it that the GPUs
    took; ``bytes_raw`` what was taken, uncompressed.
    """

    checkpoint_id: str
    frozen_seconds: float
    cuda_seconds: float
    bytes_raw: int
    phases: dict[str, float]


# Called from the event loop's thread, once; must return quickly.
OnCaptured = Callable[[Captured], None]


def ignore_captured(_captured: Captured) -> None:
    """For those who wait for the end."""


@dataclass(frozen=True, slots=True)
class CheckpointResult:
    """What ``checkpoint`` returns and prints. Sizes in bytes, times in seconds.

    ``containers`` are the members' names, ``cuda_seconds`` the part of ``frozen_seconds`` that the
    GPUs took, and ``gpus`` the models of those that were used.
    """

    checkpoint_id: str
    path: str
    name: str | None
    frozen_seconds: float
    wall_seconds: float
    phases: dict[str, float]
    bytes_raw: int
    bytes_stored: int
    chunks: int
    streams: int
    codec: str
    streamed: bool
    fallback_reason: str | None = None
    stopped: bool = False
    containers: list[str] = field(default_factory=list)
    cuda_seconds: float = 0.0
    gpus: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class RestoredMember:
    """One member that runs again; ``container_id`` is "" for a process tree without a container."""

    name: str
    container_id: str
    pid: int


@dataclass(frozen=True, slots=True)
class RestoreResult:
    """What ``restore`` returns and prints.

    ``kind``, ``target`` and ``pid`` are the first member's; ``not_restored`` names what the
    checkpoint has beside processes and was left where it is: ``MEMBER/rootfs-diff.tar`` and
    ``volumes/NAME``.
    """

    path: str
    kind: str
    target: str
    pid: int
    wall_seconds: float
    phases: dict[str, float]
    bytes_raw: int
    bytes_stored: int
    streamed: bool
    fallback_reason: str | None = None
    members: list[RestoredMember] = field(default_factory=list)
    not_restored: list[str] = field(default_factory=list)
