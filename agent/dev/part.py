"""The programs: started, listened to through their logs, ended in order."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from asyncio.subprocess import Process
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, TypeVar

from agent.errors import PartFailed
from agent.host.run import Argument, describe_status, spawn

T = TypeVar("T")

# Seconds for each part to answer. An idle machine of two cores needs two for all three; the first
# start after an installation compiles everything, and took an emulated processor over a minute.
READY_SECONDS: Final = 180.0
_LOOK: Final = 0.02

# Seconds that each gets to end: more than the daemon takes to roll everything back and to tell it.
_GRACE: Final = 60.0

# Bytes of a log that an error shows the last lines of.
_TAIL: Final = 4096

# Of our environment, for our own two programs: what makes them the same ones as this, and the
# credentials of stores.
_KEPT: Final = ("PYTHONPATH", "CHECKPOINT_AGENT_CRIU", "CHECKPOINT_AGENT_RUNC")
_CREDENTIALS: Final = ("AWS_", "AZURE_", "GOOGLE_")


@dataclass(frozen=True, slots=True)
class Part:
    """A program that was started. ``name`` begins a sentence about it."""

    name: str
    log: Path
    process: Process

    def check(self) -> None:
        """Raises PartFailed if it has ended."""
        if (status := self.process.returncode) is not None:
            raise self.failed(f"has ended with {describe_status(status)}")

    def failed(self, reason: str) -> PartFailed:
        """The error to raise about it."""
        with self.log.open("rb") as log:
            log.seek(max(0, os.fstat(log.fileno()).st_size - _TAIL))
            tail = log.read().decode(errors="replace")
        return PartFailed(self.name, reason, str(self.log), tail)

    def said(self, event: str) -> dict[str, Any] | None:
        """A line of its log, by its name."""
        for line in self.log.read_text(errors="replace").splitlines():
            # Not everything that it says is one, and the last line may be half of one.
            with suppress(ValueError):
                found = json.loads(line)
                if isinstance(found, dict) and found.get("event") == event:
                    return found
        return None


class Parts:
    """All of them, in the order of their start; ``stack`` ends them in the reverse one."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack
        self._parts: list[Part] = []

    async def start(
        self, name: str, argv: Sequence[Argument], log: Path, *, own: bool = False
    ) -> Part:
        """Start a program.

        Args:
            own: it is one of ours, and gets what of our environment is for it.

        Raises:
            MissingTool: it is not there.
        """
        out = self._stack.enter_context(_opened(log))
        # It is told to stop when this process dies, of whatever: in order, so that nothing stays
        # frozen.
        process = await self._stack.enter_async_context(
            spawn(
                ["setpriv", "--pdeathsig", "TERM", *argv],
                env=_own_environment() if own else None,
                stdout=out.fileno(),
                stderr=out.fileno(),
                grace=_GRACE,
            )
        )
        part = Part(name, log, process)
        self._parts.append(part)
        return part

    async def until(self, part: Part, look: Callable[[], T | None]) -> T:
        """What ``look``, which may block, returns as soon as that is true.

        Raises:
            PartFailed: any part has ended before, or it takes too long: of ``part``.
        """
        deadline = asyncio.get_running_loop().time() + READY_SECONDS
        while not (found := await asyncio.to_thread(look)):
            for each in self._parts:
                each.check()
            if asyncio.get_running_loop().time() > deadline:
                raise part.failed(f"was not ready within {READY_SECONDS:.0f} s")
            await asyncio.sleep(_LOOK)
        return found

    async def until_one_ends(self) -> None:
        """Wait for ever. Raises PartFailed when one of them has ended."""
        endings = [asyncio.ensure_future(part.process.wait()) for part in self._parts]
        try:
            await asyncio.wait(endings, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for ending in endings:
                ending.cancel()
        for part in self._parts:
            part.check()


def own_program(*words: Argument) -> list[Argument]:
    """How to start a command of ours; -P, because the current directory may be anybody's."""
    return [sys.executable, "-P", "-m", "agent", *words]


def _own_environment() -> dict[str, str]:
    """What our own programs inherit beside what every child does."""
    return {
        name: value
        for name, value in os.environ.items()
        if name in _KEPT or name.startswith(_CREDENTIALS)
    }


def _opened(log: Path) -> IO[bytes]:
    """Anew for each start: what it says is about this one."""
    return log.open("wb")
