"""The dump side of CRIU's image streaming: takes each image out of CRIU's pipes as it is written.

CRIU connects to ``streamer-capture.sock`` in its images directory. For every image it sends a
request with the name (u32 length, protobuf) and then the read end of a pipe (one byte with
SCM_RIGHTS), writes the image into the pipe and closes it. Nothing is acknowledged. Several images
are open at a time, but only one that is large (`pages-*`): tasks are dumped one after the other.
(criu/img-streamer.c and criu/image.c of CRIU 4.1.)

Consistency: CRIU *splices* the frozen tasks' pages into the pipe, so until they are read they are
the live pages. The tasks must stay frozen until the capture is drained: every pipe read to its
end, every byte in the agent's own memory. CRIU is held in its `post-dump` hook until then.

One thread does all reading. It is not the bottleneck: reading into pre-faulted memory goes at 3 to
5 GB/s, which compression on all cores rarely reaches.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import socket
import struct
import threading
from collections.abc import Callable
from fcntl import F_SETPIPE_SZ, fcntl
from pathlib import Path

from agent.capture.buffers import Closed
from agent.capture.images import SMALL_IMAGE, ImageSet, IncomingImage
from agent.capture.pipeline import Pipeline
from agent.host.launcher.wire import fields
from agent.host.sockets import listen, receive_descriptor, receive_exactly
from agent.manifest import IMAGE_NAME

SOCKET = "streamer-capture.sock"

# Requests hold one file name; criu-image-streamer refuses messages from 10 KB on, and so do we.
LARGEST_REQUEST = 10_000

# How far CRIU's splice may run ahead of the reader. The default of /proc/sys/fs/pipe-max-size.
PIPE_SIZE = 1 << 20


class ProtocolError(Exception):
    """CRIU sent what it never should; the dump fails."""


class Capture:
    """One dump's images, on their way into a pipeline."""

    def __init__(
        self,
        images_dir: Path,
        images: ImageSet,
        pipeline: Pipeline,
        *,
        on_drained: Callable[[], object],
    ) -> None:
        """``on_drained`` is called from the capture's thread when everything has been copied out.

        Also when the thread ends early; ``complete`` tells the two apart.
        """
        self.complete = False
        self._on_drained = on_drained
        self._pipeline = pipeline
        self._images = images
        self._scratch = memoryview(bytearray(SMALL_IMAGE))
        self._pipes: dict[int, IncomingImage] = {}
        self._draining = self._stopped = False
        # What CRIU talks to: first the listener, then the one connection it makes, then nothing.
        self._socket: socket.socket | None = listen(images_dir, SOCKET)
        self._connected = False
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._poll = select.poll()
        for descriptor in (self._socket.fileno(), self._wake_read):
            self._poll.register(descriptor, select.POLLIN)
        self._thread = threading.Thread(target=self._run, name="capture", daemon=True)

    def start(self) -> None:
        """Wait for CRIU, in a thread."""
        self._thread.start()

    def drain(self) -> None:
        """CRIU has written everything: ``on_drained`` is called when all of it is copied out."""
        self._draining = True
        self._wake()

    def stop(self) -> None:
        """End the thread and close everything. If CRIU still writes, it fails with EPIPE."""
        self._stopped = True
        if self._connected and not self.complete:
            self._give_up()
        self._wake()
        if self._thread.ident is not None:
            self._thread.join()
        self._hang_up()
        for descriptor in (self._wake_read, self._wake_write):
            if descriptor >= 0:
                os.close(descriptor)
        self._wake_read = self._wake_write = -1

    def _wake(self) -> None:
        if self._wake_write >= 0:
            os.write(self._wake_write, b"w")

    def _give_up(self) -> None:
        """Wake the thread where it waits for memory, or for the rest of a request."""
        # Without the rest of the images, the pipeline is of no use to anybody.
        self._pipeline.fail(Closed())
        peer = self._socket
        if peer is not None:
            with contextlib.suppress(OSError):
                peer.shutdown(socket.SHUT_RDWR)

    def _run(self) -> None:
        try:
            while not self._stopped:
                self._step()
        except (Closed, EOFError):
            pass  # the pipeline knows why it has failed; CRIU's exit status tells why CRIU has
        except BaseException as error:  # noqa: BLE001 - handed to the owner, never lost
            self._pipeline.fail(error)
        finally:
            # CRIU must not wait for a reader that is gone.
            self._hang_up()
            self._on_drained()

    def _step(self) -> None:
        """Wait for something to happen and deal with it; notice when nothing is left to read."""
        finishing = self._draining and not self._pipes
        events = dict(self._poll.poll(0 if finishing else None))
        if finishing and not events:
            self._draining = False
            self.complete = True
            self._on_drained()
        if events.pop(self._wake_read, 0):
            os.read(self._wake_read, 64)
        asked = self._socket is not None and events.pop(self._socket.fileno(), 0)
        for pipe in events:
            self._read(pipe)
        if asked:
            self._answer()

    def _answer(self) -> None:
        peer = self._socket
        if peer is None:
            return
        if not self._connected:
            connection, _ = peer.accept()
            self._connected = True
            self._replace_socket(connection)
            return
        head = peer.recv(4)
        if not head:
            self._replace_socket(None)
            return
        (length,) = struct.unpack("=I", head + receive_exactly(peer, 4 - len(head)))
        if length > LARGEST_REQUEST:
            raise ProtocolError(f"a request of {length} bytes")
        name = _file_name(receive_exactly(peer, length))
        pipe = receive_descriptor(peer)
        _enlarge(pipe)
        self._pipes[pipe] = self._images.incoming(name)
        self._poll.register(pipe, select.POLLIN)

    def _read(self, pipe: int) -> None:
        image = self._pipes[pipe]
        if image.read(pipe, self._scratch):
            return
        self._close_pipe(pipe)
        self._images.finished(image)

    def _close_pipe(self, pipe: int) -> None:
        self._poll.unregister(pipe)
        del self._pipes[pipe]
        os.close(pipe)

    def _replace_socket(self, replacement: socket.socket | None) -> None:
        if self._socket is not None:
            self._poll.unregister(self._socket.fileno())
            self._socket.close()
        self._socket = replacement
        if replacement is not None:
            self._poll.register(replacement.fileno(), select.POLLIN)

    def _hang_up(self) -> None:
        self._replace_socket(None)
        for pipe in list(self._pipes):
            self._close_pipe(pipe)


def _file_name(request: bytes) -> str:
    """The name in an img_streamer_request_entry: field 1, a string."""
    try:
        value = dict(fields(request)).get(1)
    except ValueError as error:
        raise ProtocolError(f"a {error}") from error
    name = os.fsdecode(value) if isinstance(value, bytes) else ""
    if not re.fullmatch(IMAGE_NAME, name):
        raise ProtocolError(f"an image named {name!r}")
    return name


def _enlarge(pipe: int) -> None:
    """Ask for a larger pipe. Without the permission it stays smaller, and only speed suffers."""
    size = PIPE_SIZE
    while size >= 64 << 10:
        try:
            fcntl(pipe, F_SETPIPE_SZ, size)
        except PermissionError:
            size //= 2
        else:
            return
