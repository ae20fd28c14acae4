"""A CRIU that restores: speaks the image streamer's protocol, each step of its own to override.

Real CRIU cannot be made to ask for oversized names, to read in odd orders or to die half-way.
"""

from __future__ import annotations

import os
import socket
import struct
import threading
from pathlib import Path
from typing import Self


class CriuClient:
    """One connection to ``streamer-serve.sock``; a context manager."""

    def __init__(self, images_dir: Path) -> None:
        self.connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        parent = os.open(images_dir, os.O_PATH)
        try:
            self.connection.connect(f"/proc/self/fd/{parent}/streamer-serve.sock")
        except OSError:
            self.connection.close()
            raise
        finally:
            os.close(parent)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def request(self, name: str) -> bytes:
        """The request message for an image."""
        data = name.encode()
        return self.framed(b"\x0a" + self.varint(len(data)) + data)

    def framed(self, message: bytes) -> bytes:
        """A message behind its length."""
        return struct.pack("=I", len(message)) + message

    def varint(self, value: int) -> bytes:
        """A protobuf integer."""
        out = bytearray()
        while value > 0x7F:
            out.append(value & 0x7F | 0x80)
            value >>= 7
        return bytes([*out, value])

    def exists(self, name: str) -> bool:
        """Ask for an image. Raises EOFError when the connection is closed instead of answered."""
        try:
            self.connection.sendall(self.request(name))
            reply = self.connection.recv(6, socket.MSG_WAITALL)
        except ConnectionError as error:
            raise EOFError from error
        if len(reply) < 6:
            raise EOFError
        assert reply[:5] == b"\x02\0\0\0\x08", reply
        return reply[5] == 1

    def pipe(self) -> int:
        """Make a pipe, send its write end, return its read end."""
        read, write = os.pipe()
        try:
            socket.send_fds(self.connection, [b"\0"], [write])
        finally:
            os.close(write)
        return read

    def open(self, name: str) -> int | None:
        """The read end of an image's pipe, or None where there is no such image."""
        return self.pipe() if self.exists(name) else None

    def read(self, name: str) -> bytes | None:
        """A whole image."""
        pipe = self.open(name)
        return None if pipe is None else read_all(pipe)


def read_all(pipe: int) -> bytes:
    """Everything until the end of a pipe, which is closed."""
    with open(pipe, "rb") as file:
        return file.read()


def read_in_thread(pipe: int, into: dict[int, bytes]) -> threading.Thread:
    """Read a pipe to its end in a thread of its own, as a task of CRIU does."""

    def read() -> None:
        into[pipe] = read_all(os.dup(pipe))

    thread = threading.Thread(target=read)
    thread.start()
    return thread
