"""The restore side of CRIU's image streaming: answers its requests for images.

CRIU connects to ``streamer-serve.sock`` in its images directory and asks for one image after the
other (u32 length, protobuf); the answer says whether there is one. If so, CRIU sends the write end
of a pipe (one byte with SCM_RIGHTS) and reads the image until the pipe is closed. All tasks share
the connection and read at the same time; a task opens its pages before it has read its pagemap to
the end, so no pipe may wait for another. (criu/img-streamer.c and criu/pagemap.c of CRIU 4.1.)
"""

from __future__ import annotations

import os
import re
import socket
import stat
import struct
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Final

from agent.errors import AgentError, RestoreFailed
from agent.host.launcher.wire import fields
from agent.host.sockets import listen, receive_descriptor, receive_exactly
from agent.manifest import IMAGE_NAME, Member
from agent.serve.delivery import Delivery
from agent.serve.prefetch import Prefetch

SOCKET: Final = "streamer-serve.sock"

# Requests hold one file name; criu-image-streamer refuses messages from 10 KB on, and so do we.
REQUEST_LIMIT: Final = 10_000

# img_streamer_reply_entry behind its length: field 1, exists.
YES: Final = b"\x02\0\0\0\x08\x01"
NO: Final = b"\x02\0\0\0\x08\x00"


class ImageServer:
    """Serves one restore of one member.

    The owner starts it before CRIU, closes it after CRIU has ended, and then asks :meth:`check`.
    """

    def __init__(
        self,
        images_dir: Path,
        member: Member,
        prefetch: Prefetch,
        *,
        replaced: Mapping[str, bytes] = MappingProxyType({}),
        failed: Callable[[], None] = lambda: None,
    ) -> None:
        """Prepare to serve; nothing is read yet.

        Args:
            replaced: what CRIU is given instead of what is stored, by images' names.
            failed: called from any thread when an image cannot be served whole.
        """
        self._directory = images_dir
        self._target = member.target
        self._images = {image.name: image for image in member.images if image.kind == "criu"}
        self._prefetch, self._replaced = prefetch, replaced
        self._failed = failed
        self._delivery: Delivery | None = None
        self._lock = threading.Lock()
        self._error: AgentError | None = None
        self._hung_up = self._closed = False
        # What CRIU talks to: first the listener, then the one connection it makes, then nothing.
        self._socket: socket.socket | None = None
        self._thread: threading.Thread | None = None

    @property
    def bytes_served(self) -> int:
        """Bytes written into CRIU's pipes so far."""
        return self._delivery.bytes_written if self._delivery else 0

    def start(self) -> None:
        """Listen, and serve in a thread. CRIU may be started as soon as this returns.

        Raises:
            RestoreFailed: the images directory cannot hold a socket.
        """
        try:
            self._socket = listen(self._directory, SOCKET)
        except OSError as error:
            reason = f"cannot listen in {self._directory}: {error.strerror}"
            raise RestoreFailed(target=self._target, reason=reason) from error
        self._delivery = Delivery(self._prefetch, self._fail)
        self._thread = threading.Thread(target=self._run, args=(self._delivery,), name="serve")
        self._thread.start()

    def wait(self) -> None:
        """Wait until CRIU has closed the connection and has every image. Raises as check does."""
        if self._thread is not None and self._delivery is not None:
            self._thread.join()
            self._delivery.join()
        self.check()

    def check(self) -> None:
        """Raise the first error that kept an image from CRIU.

        Raises:
            AgentError: of the store or the checkpoint, as it was met.
            RestoreFailed: CRIU broke the protocol.
        """
        if self._error is not None:
            raise self._error

    def hang_up(self) -> None:
        """Make CRIU fail, and return at once: no more answers, and no more pages.

        Pipes of other images stay open until :meth:`close`: CRIU would take their end for the
        images'.
        """
        with self._lock:
            self._shut_down()
        self._prefetch.stop()

    def close(self) -> None:
        """End all threads, the prefetch's too, and free everything. May be called twice.

        After CRIU has ended: pipes are closed here whether or not their images were written whole.
        """
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._shut_down()
        self._prefetch.close()
        if self._thread is not None and self._delivery is not None:
            self._thread.join()
            self._delivery.close()

    def _shut_down(self) -> None:
        # Wakes the serving thread, which alone closes the socket.
        self._hung_up = True
        if self._socket is not None:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def _fail(self, error: AgentError) -> None:
        """Keep the first error, and see that CRIU gets nothing more: no answers and no pages."""
        with self._lock:
            self._error = self._error or error
            self._shut_down()
        self._prefetch.stop(error)
        self._failed()

    def _run(self, delivery: Delivery) -> None:
        try:
            connection = self._accept()
            while connection is not None and (name := self._request(connection)) is not None:
                self._answer(connection, name, delivery)
        except (EOFError, ConnectionError):
            pass  # CRIU has ended in the middle of a message; its exit status tells more
        except AgentError as error:
            self._fail(error)
        except Exception as error:
            self._fail(RestoreFailed(self._target, f"a defect of the agent: {error!r}"))
            raise
        finally:
            self._replace_socket(None)

    def _accept(self) -> socket.socket | None:
        listener = self._socket
        if listener is None:
            return None
        try:
            connection, _ = listener.accept()
        except OSError:
            return None  # closed before CRIU came
        finally:
            (self._directory / SOCKET).unlink(missing_ok=True)
        self._replace_socket(connection)
        return connection

    def _replace_socket(self, replacement: socket.socket | None) -> None:
        with self._lock:
            previous, self._socket = self._socket, replacement
            if self._hung_up:
                self._shut_down()
        if previous is not None:
            previous.close()

    def _request(self, connection: socket.socket) -> str | None:
        """The name of the image CRIU asks for; None when it wants no more."""
        try:
            (length,) = struct.unpack("=I", receive_exactly(connection, 4))
        except EOFError:
            return None
        if length >= REQUEST_LIMIT:
            raise self._nonsense(f"a request of {length} bytes")
        try:
            value = dict(fields(receive_exactly(connection, length))).get(1)
        except ValueError as error:
            raise self._nonsense("a malformed request") from error
        name = os.fsdecode(value) if isinstance(value, bytes) else ""
        if not re.fullmatch(IMAGE_NAME, name):
            raise self._nonsense(f"a request for {name!r}")
        return name

    def _answer(self, connection: socket.socket, name: str, delivery: Delivery) -> None:
        image = self._images.get(name)
        if image is None:
            connection.sendall(NO)
            return
        # Read before it is promised: an error leaves CRIU without an answer, and it fails.
        content = self._replaced.get(name) or delivery.content(image)
        connection.sendall(YES)
        pipe = receive_descriptor(connection)
        if not stat.S_ISFIFO(os.fstat(pipe).st_mode):
            os.close(pipe)
            raise self._nonsense("something other than a pipe")
        delivery.begin(image, content, pipe)

    def _nonsense(self, what: str) -> RestoreFailed:
        return RestoreFailed(target=self._target, reason=f"CRIU sent {what} to the image server")
