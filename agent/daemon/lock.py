"""One daemon per state directory: two would each take the other's operations for abandoned."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agent.errors import AlreadyRunning, StoreFailed

_NAME = "daemon.lock"


@contextmanager
def sole_daemon(state_dir: Path) -> Iterator[None]:
    """Hold the directory's lock, which the kernel takes back whatever becomes of this process.

    Raises:
        AlreadyRunning: another daemon holds it.
        StoreFailed: the directory cannot be made or written.
    """
    path = state_dir / _NAME
    try:
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise StoreFailed("write", str(path), error.strerror or str(error)) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(descriptor, 32, 0).decode()
            raise AlreadyRunning(str(state_dir), int(owner or 0)) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(descriptor)
