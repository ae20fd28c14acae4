"""Unix sockets in directories of any depth, and descriptors over them."""

from __future__ import annotations

import array
import os
import socket
from pathlib import Path


def listen(directory: Path, name: str) -> socket.socket:
    """A listening stream socket ``directory/name``, for root alone.

    Bound through /proc/self/fd, so that the 108 bytes of ``sun_path`` never limit the directory.
    """
    parent = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            path = f"/proc/self/fd/{parent}/{name}"
            listener.bind(path)
            os.chmod(path, 0o600)
            listener.listen(1)
        except BaseException:
            listener.close()
            raise
        return listener
    finally:
        os.close(parent)


def receive_exactly(connection: socket.socket, length: int) -> bytes:
    """``length`` bytes, never one more: the next byte may carry a descriptor. Raises EOFError."""
    data = bytearray()
    while len(data) < length:
        part = connection.recv(length - len(data))
        if not part:
            raise EOFError
        data += part
    return bytes(data)


def receive_descriptor(connection: socket.socket) -> int:
    """The descriptor that comes with the next byte, close-on-exec. Raises EOFError without one."""
    descriptors = array.array("i")
    space = socket.CMSG_SPACE(descriptors.itemsize)
    _, ancillary, _, _ = connection.recvmsg(1, space, socket.MSG_CMSG_CLOEXEC)
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(data[: descriptors.itemsize])
    if not descriptors:
        raise EOFError
    return descriptors[0]
