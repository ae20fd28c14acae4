"""The least a streamer can do: read what CRIU streams into one buffer, and forget it.

No agent can freeze a process for less time over this interface, so it is what the agent's frozen
time is measured against. Speaks both of the launcher's sockets, like agent/capture/streamer.py and
agent/operation/control.py.
"""

from __future__ import annotations

import contextlib
import os
import struct
import threading
from collections.abc import Iterator
from fcntl import F_SETPIPE_SZ, fcntl
from pathlib import Path
from socket import SHUT_RDWR, socket

from agent.host.launcher.peers import CONTROL_SOCKET, HELD_HOOK
from agent.host.sockets import listen, receive_descriptor, receive_exactly

SOCKET = "streamer-capture.sock"
PIPE_SIZE = 1 << 20

# Shared by all images: nobody looks at what is in it. Of the pipe's size: a read empties the pipe.
BUFFER = bytearray(PIPE_SIZE)


@contextlib.contextmanager
def discarding(images: Path) -> Iterator[None]:
    """Serve one streamed dump into ``images``, which must exist. Returns when CRIU has gone."""
    capture, control = listen(images, SOCKET), listen(images, CONTROL_SOCKET)
    threads = [
        threading.Thread(target=work, args=(listener,), daemon=True)
        for work, listener in ((_take_images, capture), (_answer_hooks, control))
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        # Nobody will come any more: a thread that still waits for a connection ends.
        for listener in (capture, control):
            listener.shutdown(SHUT_RDWR)
        for thread in threads:
            thread.join()
        for listener in (capture, control):
            listener.close()


def _take_images(listener: socket) -> None:
    """One thread per image: CRIU has several pipes open at a time and fills them in any order."""
    readers: list[threading.Thread] = []
    with contextlib.suppress(OSError, EOFError), listener.accept()[0] as criu:
        while True:
            (length,) = struct.unpack("=I", receive_exactly(criu, 4))
            receive_exactly(criu, length)
            pipe = receive_descriptor(criu)
            readers.append(threading.Thread(target=_forget, args=(pipe,)))
            readers[-1].start()
    for reader in readers:
        reader.join()


def _forget(pipe: int) -> None:
    with contextlib.suppress(PermissionError):
        fcntl(pipe, F_SETPIPE_SZ, PIPE_SIZE)
    while os.readv(pipe, [BUFFER]):
        continue
    os.close(pipe)


def _answer_hooks(listener: socket) -> None:
    """The held hook is let go at once: what is not copied cannot be torn."""
    with contextlib.suppress(OSError), listener.accept()[0] as launcher:
        while lines := launcher.recv(4096):
            if f"hook {HELD_HOOK}".encode() in lines:
                launcher.sendall(b"ok\n")
