"""Lines of JSON with a ``checkpoint-runc``; see agent/host/wrapper/connection.py for its end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import select
import socket
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from agent.errors import InvalidArgument
from agent.host import runc
from agent.targets import RuncTarget

# Of a line that comes in: paths of a bundle and a root, 4 KiB each, and some words.
LONGEST: Final = 1 << 16

# Seconds between two looks whether the other end is still there: what goes on for nobody keeps the
# pod's next container waiting.
_LOOK: Final = 0.2

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

    def has_left(self) -> bool:
        """Whether the other end has hung up, or was killed. What it said before may be unread."""
        looking = select.poll()
        # POLLHUP is told in any case. It takes both directions: who only says no more still hears.
        looking.register(self._socket, 0)
        return bool(looking.poll(0))

    async def gone(self) -> None:
        """Wait until the other end has hung up; somebody may read what it says meanwhile."""
        while not self.has_left():  # noqa: ASYNC110 - it has a reader already
            await asyncio.sleep(_LOOK)

    @contextlib.asynccontextmanager
    async def attended(self) -> AsyncIterator[None]:
        """What is done in the block is for the other end alone: it is cancelled when that leaves.

        Raises:
            HungUp: it has left.
        """
        task, left = asyncio.current_task(), False
        assert task is not None  # noqa: S101 - a coroutine is only run by one

        async def watch() -> None:
            nonlocal left
            await self.gone()
            left = True
            task.cancel()

        watching = asyncio.create_task(watch())
        try:
            yield
        except asyncio.CancelledError:
            # Somebody else may have cancelled it as well, and is to be obeyed.
            if left and task.uncancel() == 0:
                raise HungUp("it is gone") from None
            raise
        finally:
            watching.cancel()

    async def until_gone(self) -> None:
        """Read what the other end still says, until it hangs up."""
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
