"""The two that the launcher talks to: runc, which thinks it is CRIU, and the agent."""

from __future__ import annotations

import os
import sys

# The C module below `socket`: that one costs 10 ms to import, this one nothing.
from _socket import AF_UNIX, MSG_PEEK, SO_PEERCRED, SOCK_STREAM, SOL_SOCKET, socket

from agent.host.launcher import wire

CONTROL_SOCKET = "control.sock"

# The hook that is held until the agent has copied everything out. CRIU splices live pages: were the
# tasks to run before that, the image would have pages younger than the freeze.
HELD_HOOK = "post-dump"

# CRIU announces this one in streaming mode only; the RPC protocol does not know it.
STREAMING_HOOK = "pre-stream"

# runc itself reads at most 40 KiB; its requests carry a pair of paths per mount.
_LARGEST_REQUEST = 1 << 20


class Runc:
    """runc's end of the RPC socket."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._socket = socket(fileno=descriptor)
        credentials = self._socket.getsockopt(SOL_SOCKET, SO_PEERCRED, 12)
        # struct ucred: pid, uid, gid.
        self.pid = int.from_bytes(credentials[:4], sys.byteorder)

    def peek(self) -> tuple[int, bytes]:
        """Type and options of the request, which stays in the socket for the real CRIU."""
        request = dict(wire.fields(self._socket.recv(_LARGEST_REQUEST, MSG_PEEK)))
        kind, options = request.get(wire.REQ_TYPE, 0), request.get(wire.REQ_OPTS, b"")
        return int(kind), bytes(options) if isinstance(options, bytes) else b""

    def take(self) -> None:
        """Consume the request. CRIU does not inherit the socket: it ends with this process."""
        self._socket.recv(_LARGEST_REQUEST)
        os.set_inheritable(self._descriptor, False)

    def notify(self, hook: str, pid: int) -> bool:
        """Pass a hook on; False when runc refuses, or is gone."""
        if hook == STREAMING_HOOK:
            return True
        notice = wire.text(1, hook.encode()) + wire.number(2, pid)
        if not self._respond(wire.NOTIFY, True, wire.text(wire.RESP_NOTIFY, notice)):
            return False
        answer = dict(wire.fields(self._socket.recv(_LARGEST_REQUEST)))
        return bool(answer.get(wire.REQ_NOTIFY_SUCCESS, 0))

    def finish(self, kind: int, *, success: bool) -> None:
        """The response to the request itself."""
        self._respond(kind, success)

    def _respond(self, kind: int, success: bool, rest: bytes = b"") -> bool:
        head = wire.number(wire.RESP_TYPE, kind) + wire.number(wire.RESP_SUCCESS, success)
        try:
            self._socket.send(head + rest)
        except OSError:
            return False
        return True


class Agent:
    """The agent's control socket in the images directory: one line each way at a time."""

    def __init__(self, images: str) -> None:
        self._socket = socket(AF_UNIX, SOCK_STREAM)
        self._socket.connect(f"{images}/{CONTROL_SOCKET}")

    def on_hook(self, hook: str, pid: int) -> bool:
        """Report a hook. The held one waits for the agent's word, and fails without it."""
        told = self._tell(f"hook {hook} {pid}")
        return told and self._agreed() if hook == HELD_HOOK else True

    def fall_back(self, reason: str) -> None:
        """Say why there can be no stream. When this returns, the agent knows, or is gone."""
        if self._tell(f"fallback {reason}"):
            self._agreed()

    def _tell(self, line: str) -> bool:
        """Send a line; False when the agent is gone."""
        text = line.replace("\n", " ").encode(errors="replace")
        try:
            self._socket.send(text + b"\n")
        except OSError:
            return False
        return True

    def _agreed(self) -> bool:
        """Wait for the agent's answer; False when it is gone."""
        try:
            return self._socket.recv(64) == b"ok\n"
        except OSError:
            return False
