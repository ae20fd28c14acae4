"""A notice by a file: for whoever knows by other means that a node goes, and can write a file."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Final

from agent.drain.notice import Notice, Tell
from agent.heartbeat.durations import parse_duration
from agent.logs import get_logger

log = get_logger(__name__)

# Seconds between two looks; one is a system call.
_LOOK_SECONDS: Final = 0.5

# A duration has no more letters.
_MOST: Final = 64


class FileSource:
    """Holds as long as the file is there. It may say how long there is, as `90s`, or be empty."""

    name = "file"

    def __init__(self, path: Path) -> None:
        self._path = path

    async def watch(self, tell: Tell) -> None:
        """See Source."""
        there = False
        while True:
            was, there = there, self._is_there()
            if there and not was:
                # Who writes it has opened it before it says anything.
                await asyncio.sleep(_LOOK_SECONDS / 5)
                tell(Notice(f"{self._path} appeared", self._seconds()))
            elif was and not there:
                tell(None)
            await asyncio.sleep(_LOOK_SECONDS)

    def _is_there(self) -> bool:
        return os.path.exists(self._path)

    def _seconds(self) -> float | None:
        """What is left of what the file says: it counts from the time at which it was written."""
        try:
            # Whatever it is: a pipe that nobody writes to, or a directory, says nothing.
            descriptor = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                written = os.fstat(descriptor).st_mtime
                text = os.read(descriptor, _MOST).decode(errors="replace").strip()
            finally:
                os.close(descriptor)
        except OSError:
            return None
        try:
            # An agent that was started again finds it old. Nothing is written in the future.
            age = max(0.0, time.time() - written)
            return max(0.0, parse_duration(text) - age) if text else None
        except ValueError as error:
            log.warning("the drain file says no duration", path=str(self._path), reason=str(error))
            return None
