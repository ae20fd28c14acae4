"""Lines of JSON with a ``checkpoint-runc``; see agent/host/wrapper/connection.py for its end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from agent.errors import InvalidArgument
from agent.host import runc
from agent.targets import RuncTarget

# Of a line that comes in: paths of a bundle and a root, 4 KiB each, and some words.
LONGEST: Final = 1 << 16

_CREDENTIALS: Final = struct.Struct("3i")  # struct ucred: pid, uid, gid


class HungUp(Exception):
    """The other end is gone, or says what nobody understands."""


@dataclass(frozen=True, slots=True)
class Creation:
    """A container that an engine is about to create.

    Attributes:
        impossible: an option it is created with and cannot be restored with, "" for none.
        upper: the directory of the overlay that its root is, which takes what it writes.
    """

    target: RuncTarget
    bundle: Path
    impossible: str = ""
    upper: Path | None = None


def creation_from(content: dict[str, Any]) -> Creation:
    """What a ``create`` message says. Raises InvalidArgument."""
    container, impossible = content.get("id"), content.get("impossible", "")
    if not isinstance(container, str) or not runc.is_valid_id(container):
        raise InvalidArgument("id", "is no container id")
    if not isinstance(impossible, str):
        raise InvalidArgument("impossible", "is no text")
    upper = content.get("upper")
    return Creation(
        target=RuncTarget(container, _path(content, "root")),
        bundle=_path(content, "bundle"),
        impossible=impossible,
        upper=None if upper is None else _path(content, "upper"),
    )


def _path(content: dict[str, Any], key: str) -> Path:
    value = content.get(key)
    if not isinstance(value, str) or not value.startswith("/") or "\0" in value:
        raise InvalidArgument(key, "is no absolute path")
    return Path(value)


class Conversation:
    """One connection. Its socket does not block, and is closed by whoever made it."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._buffer = b""
        self._loop = asyncio.get_running_loop()

    def is_root(self) -> bool:
        """Whether root is at the other end."""
        packed = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        return bool(_CREDENTIALS.unpack(packed)[1] == 0)

    async def send(self, word: str, content: dict[str, Any], lock: int | None = None) -> None:
        """Send a message, and with it a descriptor.

        Raises:
            HungUp: nobody will read it.
        """
        line = json.dumps({word: content}).encode() + b"\n"
        try:
            if lock is not None:
                # Some hundred bytes into an empty buffer: this neither blocks nor writes a part.
                socket.send_fds(self._socket, [line], [lock])
            else:
                await self._loop.sock_sendall(self._socket, line)
        except OSError as error:
            raise HungUp(str(error)) from error

    async def receive(self) -> tuple[str, dict[str, Any]]:
        """The next message: its one word, and what belongs to it.

        Raises:
            HungUp
        """
        while b"\n" not in self._buffer:
            if len(self._buffer) > LONGEST:
                raise HungUp("a line without an end")
            try:
                data = await self._loop.sock_recv(self._socket, LONGEST)
            except OSError as error:
                raise HungUp(str(error)) from error
            if not data:
                raise HungUp("it is gone")
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return _parse(line)

    async def until_gone(self) -> None:
        """Wait until the other end hangs up."""
        with contextlib.suppress(HungUp):
            while True:
                await self.receive()


def _parse(line: bytes) -> tuple[str, dict[str, Any]]:
    try:
        ((word, content),) = json.loads(line).items()
    except (ValueError, AttributeError, RecursionError):
        raise HungUp("no message") from None
    if not isinstance(content, dict):
        raise HungUp("no message")
    return word, content
