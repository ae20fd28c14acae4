"""A client that speaks NATS's text protocol over a plain socket, and nothing else."""

from __future__ import annotations

import json
import socket
from contextlib import ExitStack
from types import TracebackType
from typing import Self

SECONDS = 10.0


class PlainClient:
    """One connection, for publishing as any program in any language does it."""

    def __init__(self, port: int) -> None:
        with ExitStack() as stack:
            connection = socket.create_connection(("127.0.0.1", port), SECONDS)
            self._socket = stack.enter_context(connection)
            self._answers = stack.enter_context(self._socket.makefile("rb"))
            assert self._answers.readline().startswith(b"INFO ")
            options = {"verbose": False, "pedantic": False, "lang": "plain", "version": "1"}
            self._socket.sendall(f"CONNECT {json.dumps(options)}\r\n".encode())
            self.flush()
            self._open = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._open.close()

    def publish(self, subject: str, payload: bytes) -> None:
        """Send, and return once the server has taken it."""
        self.send(subject, payload)
        self.flush()

    def send(self, subject: str, payload: bytes) -> None:
        """Send without waiting."""
        self._socket.sendall(b"PUB %s %d\r\n%s\r\n" % (subject.encode(), len(payload), payload))

    def flush(self) -> None:
        """Return once the server has read everything."""
        self._socket.sendall(b"PING\r\n")
        while (line := self._answers.readline()) != b"PONG\r\n":
            assert line == b"PING\r\n", line
            self._socket.sendall(b"PONG\r\n")
