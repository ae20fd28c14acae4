"""The cgroup freezer, version 1 and 2."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

# What a cgroup that is removed says, and one that is just being removed.
_GONE = (errno.ENOENT, errno.ENODEV)

# What one whose processes are not to be had says: of a threaded one they are listed above it, and a
# name of more than 4096 bytes cannot be asked for.
_UNLISTED = (*_GONE, errno.EOPNOTSUPP, errno.ENAMETOOLONG)

# Seconds. CRIU gives tasks as long by default (--timeout).
FREEZE_TIMEOUT = 10.0


@dataclass(frozen=True, slots=True)
class Freezer:
    """The freezer of one container."""

    path: Path
    version: int

    def exists(self) -> bool:
        """Whether the cgroup is still there."""
        return self._control.exists()

    def is_frozen(self) -> bool:
        """Whether the cgroup is frozen or about to be; False when it is gone."""
        try:
            return self._control.read_text().strip() in ("FROZEN", "FREEZING", "1")
        except OSError as error:
            if error.errno not in _GONE:
                raise
            return False

    def pids(self) -> list[int]:
        """The processes in it and in those that a container has made below it; none when gone."""
        found: list[int] = []
        directories = [os.fspath(self.path)]
        # Not os.walk(), which calls itself: there may be a thousand below each other.
        for directory in directories:
            with _where_listed():
                found += map(int, Path(directory, "cgroup.procs").read_text().split())
            with _where_listed(), os.scandir(directory) as inside:
                directories += [each.path for each in inside if each.is_dir()]
        return found

    def freeze(self) -> None:
        """Stop every task; returns when all have stopped. Raises TimeoutError when they do not.

        A task in an uninterruptible system call (a hung network file system) cannot be frozen.
        """
        self.begin()
        self.wait()

    def begin(self) -> None:
        """Tell every task to stop, without waiting until they have."""
        self._control.write_text("FROZEN" if self.version == 1 else "1")

    def wait(self) -> None:
        """Return when all have stopped. Raises TimeoutError when they do not."""
        deadline = time.monotonic() + FREEZE_TIMEOUT
        while not self._has_frozen():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.path} did not freeze within {FREEZE_TIMEOUT} s")
            time.sleep(0.001)

    def thaw(self) -> None:
        """Let it run again. A cgroup that is gone needs no thawing."""
        try:
            self._control.write_text("THAWED" if self.version == 1 else "0")
        except OSError as error:
            if error.errno not in _GONE:
                raise

    def _has_frozen(self) -> bool:
        if self.version == 1:
            return self._control.read_text().strip() == "FROZEN"
        return "frozen 1" in (self.path / "cgroup.events").read_text()

    @property
    def _control(self) -> Path:
        return self.path / ("freezer.state" if self.version == 1 else "cgroup.freeze")


@contextmanager
def _where_listed() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _UNLISTED:
            raise


def freezer(paths: Mapping[str, str]) -> Freezer | None:
    """The freezer among runc's cgroup paths: by controller, or under "" on version 2."""
    if paths.get("freezer"):
        return Freezer(Path(paths["freezer"]), 1)
    if paths.get(""):
        return Freezer(Path(paths[""]), 2)
    return None
