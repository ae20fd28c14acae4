"""Where runc and CRIU work for one member of an operation, and what is noted beside them."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path

import psutil

from agent.errors import StoreFailed
from agent.host import process

_ROOT = "root"
_BEGUN = "begun"
_WAITING = "waiting"

# Seconds that the clock may have been set by between two looks at it, and not more: a file's time
# is by the clock, a process's by the machine's start.
_CLOCK = 1.0


class Workplace:
    """The directories that runc and CRIU work in for one member of an operation."""

    def __init__(self, directory: Path, lock: int, kept: threading.Event | None = None) -> None:
        """``kept`` is the whole operation's, see :meth:`keep`."""
        self.directory = directory
        self.lock = lock
        self.images = directory / "images"
        self.work = directory / "work"
        self.launcher = directory / "launcher"
        # Where runc or CRIU, at the end of a restore, writes the first task's pid.
        self.pid_file = self.work / "pid"
        self._kept = kept or threading.Event()

    def keep(self) -> None:
        """Something could not be undone, or somebody is still at it: the operation stays in the
        journal when it is over, and a later recovery sees to it.
        """
        self._kept.set()

    def make(self) -> None:
        """Make those that have to be there. Raises OSError."""
        for path in (self.images, self.work):
            path.mkdir(mode=0o700, parents=True)

    def note_root(self, pid: int) -> None:
        """Remember the first task that a restore has made: it may have to be found and ended."""
        if found := process.stat(pid):
            (self.directory / _ROOT).write_text(f"{pid} {found.started}")

    def note_begun(self, begun: bool) -> None:
        """Remember whether runc or CRIU is started now to restore something that was not there.

        Raises:
            StoreFailed: it cannot be remembered.
        """
        self._note(_BEGUN, begun)

    @property
    def has_begun(self) -> bool:
        """Whether something half-made can be what this restore has left."""
        return (self.directory / _BEGUN).exists()

    def note_waiting(self, waiting: bool) -> None:
        """Remember whether what is restored waits for something else, although it runs.

        Raises:
            StoreFailed: it cannot be remembered. That it waits no more is nothing to fail for.
        """
        self._note(_WAITING, waiting)

    @property
    def is_waiting(self) -> bool:
        """Whether it waits, or nobody has said that it does not any more."""
        return (self.directory / _WAITING).exists()

    def root_alive(self) -> int | None:
        """The pid of the task noted, as long as it lives."""
        root = self._root()
        return root[0] if root is not None and process.is_alive(*root) else None

    def has_made(self, pid: int, started: int) -> bool:
        """Whether this process is the first task that the restore has made, dead or alive."""
        return self._root() == (pid, started) or self._has_written(pid, started)

    def _root(self) -> tuple[int, int] | None:
        try:
            pid, started = map(int, (self.directory / _ROOT).read_text().split())
        except (OSError, ValueError):
            return None
        return pid, started

    def _has_written(self, pid: int, started: int) -> bool:
        """Whether the restore has ended with it; where CRIU does not stream, nobody notes it."""
        try:
            written = self.pid_file.stat().st_mtime
            is_same = int(self.pid_file.read_text()) == pid
        except (OSError, ValueError):
            return False
        # A later one with that pid has begun after it was written.
        began = psutil.boot_time() + started / os.sysconf("SC_CLK_TCK")
        return is_same and began <= written + _CLOCK

    def _note(self, name: str, holds: bool) -> None:
        mark = self.directory / name
        if not holds:
            with contextlib.suppress(OSError):
                mark.unlink()
            return
        try:
            mark.touch()
        except OSError as error:
            raise StoreFailed("write", str(mark), error.strerror or str(error)) from error
