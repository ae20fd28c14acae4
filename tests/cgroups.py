"""Real cgroups with a freezer, and a real process in them that answers only while it runs."""

from __future__ import annotations

import os
import secrets
import select
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from agent.host.cgroup import Freezer
from tests.waiting import PATIENCE, eventually

# Seconds in which a process that runs would surely have answered; one that is frozen never does.
_SILENCE = 0.03


def _mount(version: int) -> Path | None:
    """Where the freezer of a version is mounted."""
    for line in Path("/proc/mounts").read_text().splitlines():
        _, path, kind, options, *_ = line.split()
        wanted = kind == "cgroup2" if version == 2 else kind == "cgroup"
        if wanted and (version == 2 or "freezer" in options.split(",")):
            return Path(path)
    return None


class Echo:
    """A process in a cgroup of its own."""

    def __init__(self, freezer: Freezer) -> None:
        self.freezer = freezer
        self._process = subprocess.Popen(
            ["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )
        self.pid = self._process.pid
        self._owed = 0
        (freezer.path / "cgroup.procs").write_text(str(self.pid))

    def runs(self) -> bool:
        """Whether it answers everything it was ever asked."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(b"?")
        self._owed += 1
        patience = _SILENCE if self.freezer.is_frozen() else PATIENCE
        while self._owed and select.select([self._process.stdout], [], [], patience)[0]:
            self._owed -= len(os.read(self._process.stdout.fileno(), 100))
        return not self._owed

    def end(self) -> None:
        """Kill it."""
        self._process.kill()
        self._process.communicate()


@contextmanager
def echo(version: int) -> Iterator[Echo]:
    """A running process in a new cgroup; skips where there are none of that version."""
    mount = _mount(version)
    if mount is None or os.geteuid() != 0:
        pytest.skip(f"needs root and a cgroup version {version} freezer")
    path = mount / f"checkpoint-agent-test-{secrets.token_hex(4)}"
    path.mkdir()
    made: Echo | None = None
    try:
        made = Echo(Freezer(path, version))
        yield made
    finally:
        if made is not None:
            made.freezer.thaw()
            made.end()
        with suppress(FileNotFoundError):
            eventually(lambda: _remove(path), "an empty cgroup")


def _remove(path: Path) -> bool:
    try:
        path.rmdir()
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            raise
        return False
    return True
