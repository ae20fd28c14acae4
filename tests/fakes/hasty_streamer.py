"""A streamer with a fault: it lets the tasks run before it has read the last of their pages.

What not to do, for a test to show what comes of it. It reads CRIU's images as the agent does, but
leaves the end of the pages image in the pipe until it is told that the tasks run again.
"""

from __future__ import annotations

import array
import os
import select
import socket
import struct
import termios
import threading
from contextlib import suppress
from fcntl import F_GETPIPE_SZ, F_SETPIPE_SZ, fcntl, ioctl
from pathlib import Path
from typing import Self

from agent.host.sockets import listen, receive_descriptor, receive_exactly

# Room that CRIU always finds in the pipe, so that it never waits for long.
_ROOM = 128 << 10


class HastyStreamer:
    """Listens in an images directory; ``pages`` are complete after :meth:`finish`.

    A context manager: its threads end with the block, also when no CRIU has come.
    """

    def __init__(self, images_dir: Path) -> None:
        self.pages = bytearray()
        self._listener = listen(images_dir, "streamer-capture.sock")
        self._running_again = threading.Event()
        self._threads = [threading.Thread(target=self._serve)]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        # Closing it would not wake a thread that accepts; it has closed it itself if CRIU has come.
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self.finish()

    def finish(self) -> None:
        """CRIU has ended and the tasks run again: read the rest."""
        self._running_again.set()
        for thread in self._threads:
            thread.join()

    def _serve(self) -> None:
        with self._listener:
            try:
                connection, _ = self._listener.accept()
            except OSError:  # it was shut down: nobody has come
                return
        with connection:
            while name := _request(connection):
                pipe = receive_descriptor(connection)
                read = self._read_late if name.startswith(b"pages-") else _read_at_once
                thread = threading.Thread(target=read, args=(pipe,))
                self._threads.append(thread)
                thread.start()

    def _read_late(self, pipe: int) -> None:
        fcntl(pipe, F_SETPIPE_SZ, 1 << 20)
        ended = select.poll()
        ended.register(pipe, select.POLLHUP)
        while not ended.poll(1):
            if _waiting(pipe) > fcntl(pipe, F_GETPIPE_SZ) - _ROOM:
                self.pages += os.read(pipe, _ROOM)
        self._running_again.wait()
        while data := os.read(pipe, 1 << 20):
            self.pages += data
        os.close(pipe)


def _request(connection: socket.socket) -> bytes:
    """The name of the next image; nothing at the end."""
    try:
        (length,) = struct.unpack("=I", receive_exactly(connection, 4))
    except EOFError:
        return b""
    # Field 1, a string shorter than 128 bytes.
    return receive_exactly(connection, length)[2:]


def _read_at_once(pipe: int) -> None:
    with open(pipe, "rb") as image:
        image.read()


def _waiting(pipe: int) -> int:
    count = array.array("i", [0])
    ioctl(pipe, termios.FIONREAD, count)
    return count[0]
