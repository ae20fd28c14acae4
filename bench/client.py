"""A TCP client outside the container, connected to family.c while that is checkpointed."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.reports import PATIENCE, Stalled


@dataclass(frozen=True, slots=True)
class Client:
    """One connection, held by a busybox ``nc``."""

    process: subprocess.Popen[bytes]

    def echo(self, line: bytes, *, timeout: float = PATIENCE) -> bytes:
        """Send a line and return what comes back, of the same length.

        Raises:
            Stalled: nothing came, or the connection is gone.
        """
        if self.process.stdin is None or self.process.stdout is None:
            raise ValueError("no pipes to talk over")
        self.process.stdin.write(line)
        self.process.stdin.flush()
        back = b""
        while len(back) < len(line):
            ready, _, _ = select.select([self.process.stdout], [], [], timeout)
            part = os.read(self.process.stdout.fileno(), 4096) if ready else b""
            if not part:
                raise Stalled(f"no echo of {line!r}: {back!r}")
            back += part
        return back


@contextlib.contextmanager
def connected(netns: Path, port: int) -> Iterator[Client]:
    """A client connected to 127.0.0.1:``port`` inside the network namespace ``netns``."""
    argv = ["nsenter", f"--net={netns}", "busybox", "nc", "127.0.0.1", str(port)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield Client(process)
        finally:
            process.kill()
