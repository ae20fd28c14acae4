"""Where runc and CRIU work for one member of an operation, and what is noted beside them."""

from __future__ import annotations

import threading
from pathlib import Path

from agent.errors import StoreFailed
from agent.host import process

_ROOT = "root"
_WAITING = "waiting"


class Workplace:
    """The directories that runc and CRIU work in for one member of an operation."""

    def __init__(self, directory: Path, lock: int, kept: threading.Event | None = None) -> None:
        """``kept`` is the whole operation's, see :meth:`keep`."""
        self.directory = directory
        self.lock = lock
        self.images = directory / "images"
        self.work = directory / "work"
        self.launcher = directory / "launcher"
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

    def note_waiting(self, waiting: bool) -> None:
        """Remember whether what is restored waits for something else, although it runs.

        Raises:
            StoreFailed: it cannot be remembered. That it waits no more is nothing to fail for.
        """
        mark = self.directory / _WAITING
        try:
            if waiting:
                mark.touch()
            else:
                mark.unlink()
        except OSError as error:
            if waiting:
                raise StoreFailed("write", str(mark), error.strerror or str(error)) from error

    @property
    def is_waiting(self) -> bool:
        """Whether it waits, or nobody has said that it does not any more."""
        return (self.directory / _WAITING).exists()

    def root_alive(self) -> int | None:
        """The pid of the task noted, as long as it lives."""
        try:
            pid, started = map(int, (self.directory / _ROOT).read_text().split())
        except (OSError, ValueError):
            return None
        return pid if process.is_alive(pid, started) else None
