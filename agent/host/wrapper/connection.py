"""The agent's end of the conversation: lines of JSON over its unix socket.

    us      {"create": {"id": ..., "root": ..., "bundle": ...}}
    agent   {"limit": {"seconds": ...}}     it is there, and will not let us wait longer than that
    agent   {"volumes": {"paths": [...]}}   what is in these is put aside (agent/host/aside.py)
    agent   {"run": {...}}                  everything that `runc restore` needs, and a lock
    us      {"ended": {"status": ..., "pid": ..., "reason": ...}}   a reason where it was not runc's
    agent   {"run": {...}}                  once more, where CRIU cannot stream
    agent   {"restored": {}} or {"cold": {"reason": ...}} or {"failed": {"reason": ...}}

Whoever hangs up before the last line has given up.
"""

from __future__ import annotations

import json
import os
import sys
import time

# The C module below `socket`, which costs 10 ms to import.
from _socket import AF_UNIX, CMSG_LEN, MSG_NOSIGNAL, SCM_RIGHTS, SOCK_STREAM, SOL_SOCKET, socket

# Not typing's, which takes 5 ms to import.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Of a line. A restore's longest is the agent's, with some paths in it.
_LONGEST = 1 << 16

_DESCRIPTOR = 4  # bytes of an int

# Seconds between two tries to connect.
_PAUSE = 0.1


class HungUp(Exception):
    """The agent is gone, says nothing any more, or what nobody understands."""


class Connection:
    """One conversation."""

    def __init__(self, connected: socket) -> None:
        self._socket = connected
        self._buffer = b""
        self.lock: int | None = None

    def fileno(self) -> int:
        """For poll."""
        return self._socket.fileno()

    def release(self) -> None:
        """Give the lock back: the runc that follows is no part of the restore, and waits in a
        created container for as long as nobody starts it.
        """
        if self.lock is not None:
            os.close(self.lock)
            self.lock = None

    def send(self, message: dict[str, Any]) -> None:
        """Raises HungUp."""
        try:
            self._socket.settimeout(None)
            self._socket.sendall(json.dumps(message).encode() + b"\n", MSG_NOSIGNAL)
        except OSError as error:
            raise HungUp(str(error)) from None

    def receive(self, deadline: float) -> tuple[str, dict[str, Any]]:
        """The next message: its one word, and what belongs to it.

        Args:
            deadline: on the monotonic clock.

        Raises:
            HungUp: also when it is late.
        """
        while b"\n" not in self._buffer:
            self._read(deadline)
        line, _, self._buffer = self._buffer.partition(b"\n")
        try:
            ((word, content),) = json.loads(line).items()
        except (ValueError, AttributeError, RecursionError):
            raise HungUp("it says what nobody understands") from None
        if not isinstance(content, dict):
            raise HungUp("it says what nobody understands")
        return word, content

    def _read(self, deadline: float) -> None:
        remaining = deadline - time.monotonic()
        if remaining <= 0 or len(self._buffer) > _LONGEST:
            raise HungUp("it did not answer in time")
        self._socket.settimeout(remaining)
        try:
            data, ancillary, _, _ = self._socket.recvmsg(_LONGEST, CMSG_LEN(_DESCRIPTOR))
        except OSError as error:
            raise HungUp(str(error)) from None
        for level, kind, descriptors in ancillary:
            if (level, kind) == (SOL_SOCKET, SCM_RIGHTS):
                self.release()
                # Inherited by every runc from here on, see agent/operation/journal.py.
                self.lock = int.from_bytes(descriptors[:_DESCRIPTOR], sys.byteorder)
        if not data:
            raise HungUp("it is gone")
        self._buffer += data


def connect(path: str, patience: float) -> Connection | None:
    """Ask for the agent for ``patience`` seconds: it may be about to start. None when it is not."""
    deadline = time.monotonic() + patience
    while True:
        connected = socket(AF_UNIX, SOCK_STREAM)
        # Otherwise it waits, for ever perhaps, when as many wait already as may.
        connected.settimeout(_PAUSE)
        try:
            connected.connect(path)
            return Connection(connected)
        except OSError:
            connected.close()
        if time.monotonic() > deadline:
            return None
        time.sleep(_PAUSE)
