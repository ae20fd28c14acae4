"""The agent's end of the launcher's control socket, one line at a time and as slow as wanted."""

from __future__ import annotations

import socket
from pathlib import Path

from agent.host.launcher.peers import CONTROL_SOCKET
from agent.host.sockets import listen
from tests.waiting import PATIENCE


class AgentEnd:
    """A directory for images with the sockets that make the launcher stream; a context manager."""

    def __init__(self, images: Path, streamer: str | None, *, control: bool = True) -> None:
        images.mkdir()
        self.images = images
        self._sockets = [listen(images, streamer)] if streamer else []
        self._listener = listen(images, CONTROL_SOCKET) if control else None
        self._connection: socket.socket | None = None

    def __enter__(self) -> AgentEnd:
        return self

    def __exit__(self, *_: object) -> None:
        self.die()
        for each in self._sockets:
            each.close()

    def hear(self) -> str:
        """The next line; "" when the launcher has hung up."""
        line = b""
        while not line.endswith(b"\n"):
            byte = self._connected().recv(1)
            if not byte:
                break
            line += byte
        return line.decode().rstrip("\n")

    def say(self, word: str) -> None:
        """Answer a held hook."""
        self._connected().sendall(f"{word}\n".encode())

    def die(self) -> None:
        """Close everything, as the death of the agent would."""
        for each in (self._connection, self._listener):
            if each is not None:
                each.close()
        self._connection = self._listener = None

    def _connected(self) -> socket.socket:
        if self._connection is None:
            assert self._listener is not None
            self._listener.settimeout(PATIENCE)
            self._connection, _ = self._listener.accept()
            self._connection.settimeout(PATIENCE)
        return self._connection
