"""A CRIU that dumps: speaks the image streamer's protocol, each step of its own to override.

Real CRIU cannot be made to send garbage, to stop in the middle of a message or to die half-way.
"""

from __future__ import annotations

import array
import fcntl
import os
import socket
import struct
import termios
from pathlib import Path

from agent.capture.streamer import SOCKET


class CriuDump:
    """One connection to ``streamer-capture.sock``; a context manager."""

    def __init__(self, images_dir: Path) -> None:
        self.connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._pipes: set[int] = set()
        parent = os.open(images_dir, os.O_PATH)
        try:
            self.connection.connect(f"/proc/self/fd/{parent}/{SOCKET}")
        except OSError:
            self.connection.close()
            raise
        finally:
            os.close(parent)

    def __enter__(self) -> CriuDump:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()
        for pipe in list(self._pipes):
            self.close(pipe)

    def send(self, name: str) -> None:
        """The request for an image."""
        data = name.encode()
        length = bytearray()
        rest = len(data)
        while rest > 0x7F:
            length.append(rest & 0x7F | 0x80)
            rest >>= 7
        self.send_raw(b"\x0a" + bytes([*length, rest]) + data)

    def send_raw(self, message: bytes) -> None:
        """A message behind its length."""
        self.connection.sendall(struct.pack("=I", len(message)) + message)

    def send_pipe(self) -> int:
        """Make a pipe, send its read end, return its write end."""
        read, write = os.pipe()
        try:
            socket.send_fds(self.connection, [b"\0"], [read])
        finally:
            os.close(read)
        self._pipes.add(write)
        return write

    def open(self, name: str) -> int:
        """Begin an image: the pipe to write it to."""
        self.send(name)
        return self.send_pipe()

    def close(self, pipe: int) -> None:
        """End an image."""
        self._pipes.remove(pipe)
        os.close(pipe)

    def dump(self, name: str, data: bytes) -> None:
        """A whole image. Waits for the reader when it is more than a pipe takes."""
        pipe = self.open(name)
        write_all(pipe, data)
        self.close(pipe)


def write_all(pipe: int, data: bytes) -> None:
    """Write everything. Raises BrokenPipeError when the reader is gone."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(pipe, rest) :]


def unread(pipe: int) -> int:
    """Bytes that are in a pipe."""
    count = array.array("i", [0])
    fcntl.ioctl(pipe, termios.FIONREAD, count)
    return count[0]
