"""One lock for each target: a file that is there while somebody works on it."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from agent.errors import StoreFailed, TargetBusy


@contextmanager
def exclusive(state_dir: Path, target: str) -> Iterator[None]:
    """Hold a target's lock: at most one checkpoint or restore of it at a time.

    Raises:
        TargetBusy: somebody else holds it.
    """
    path = state_dir / "locks" / hashlib.sha256(target.encode()).hexdigest()[:32]
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = _lock(path, target)
    except OSError as error:
        raise StoreFailed("write", str(path.parent), error.strerror or str(error)) from error
    try:
        # Only for messages: a full disk keeps nobody from it.
        with suppress(OSError):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        # There is a file for each container that there ever was, otherwise. On a disk that has
        # become read-only it stays, and is nobody's lock.
        with suppress(OSError):
            path.unlink()
        os.close(descriptor)


def _lock(path: Path, target: str) -> int:
    """A lock on the file that is called so now. Raises TargetBusy and OSError."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                    return descriptor
        except BlockingIOError:
            owner = os.pread(descriptor, 32, 0).decode()
            os.close(descriptor)
            raise TargetBusy(target, int(owner or 0)) from None
        except BaseException:
            os.close(descriptor)
            raise
        # Its holder has removed it after it was opened here, and another one may be there.
        os.close(descriptor)
