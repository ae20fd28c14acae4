"""Where an archive comes from: a file, or a pipe that somebody may never close."""

from __future__ import annotations

import contextlib
import os
import select
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from agent.capture.buffers import Closed
from agent.errors import InvalidArgument, StoreFailed

STDIN: Final = "-"

# Who waits for a pipe looks this often whether anybody still wants what comes.
_LOOK_SECONDS: Final = 0.2


@contextmanager
def opened(archive: str) -> Iterator[int]:
    """A descriptor of a file, or of standard input for ``-``. Raises InvalidArgument."""
    if archive == STDIN:
        yield 0
        return
    try:
        # Without waiting for somebody to write, if it is a named pipe: the loop has other work.
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
        descriptor = os.open(archive, flags)
    except OSError as error:
        raise InvalidArgument("ARCHIVE", f"{archive}: {error.strerror or error}") from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


class Input:
    """A file or pipe to read from, until nobody wants it any more."""

    def __init__(self, descriptor: int, name: str, is_over: Callable[[], bool]) -> None:
        self._descriptor, self._name, self._is_over = descriptor, name, is_over
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLIN)

    def read(self, length: int, /) -> bytes:
        """At most ``length`` bytes; waits for them. Raises Closed, StoreFailed."""
        while True:
            if self._is_over():
                raise Closed
            if self._poll.poll(_LOOK_SECONDS * 1000):
                with contextlib.suppress(BlockingIOError):
                    return self._read(length)

    def _read(self, length: int) -> bytes:
        try:
            return os.read(self._descriptor, length)
        except BlockingIOError:
            raise
        except OSError as error:
            raise StoreFailed("read", self._name, error.strerror or str(error)) from error
