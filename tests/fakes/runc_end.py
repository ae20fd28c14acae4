"""runc's end of CRIU's RPC, and the launcher started on it as runc starts `criu swrk 3`."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from pycriu import rpc_pb2

from tests.waiting import PATIENCE

# Above all descriptors that the child is given.
_HIGH = 64


class RuncEnd:
    """One run of a ``criu`` that speaks RPC on descriptor 3; a context manager.

    Args:
        more: descriptors of this process that the child gets as 4, 5, ...
        standard: descriptors of this process that the child gets as 0, 1 and 2.
    """

    def __init__(
        self,
        program: Path,
        request: bytes,
        *,
        words: Sequence[str] = ("swrk", "3"),
        more: Sequence[int] = (),
        standard: Sequence[int] = (),
    ) -> None:
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._status: int | None = None
        with theirs, ExitStack() as parents, ExitStack() as failed:
            failed.callback(self.socket.close)
            self.socket.settimeout(PATIENCE)
            if request:
                self.socket.send(request)
            actions = []
            wanted = {3: theirs.fileno(), **dict(enumerate(more, 4)), **dict(enumerate(standard))}
            for to, at in wanted.items():
                copy = fcntl.fcntl(at, fcntl.F_DUPFD_CLOEXEC, _HIGH)
                parents.callback(os.close, copy)
                actions.append((os.POSIX_SPAWN_DUP2, copy, to))
            self.pid = os.posix_spawn(
                program, [str(program), *words], dict(os.environ), file_actions=actions
            )
            failed.pop_all()

    def __enter__(self) -> RuncEnd:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()
        if self._status is None:
            self.kill()
            self.wait()

    def receive(self) -> Any:  # noqa: ANN401 - a class that pycriu makes at run time
        """The next response. Raises EOFError when the other end has hung up."""
        data = self.socket.recv(1 << 20)
        if not data:
            raise EOFError
        return rpc_pb2.criu_resp.FromString(data)

    def receive_notice(self) -> tuple[str, int]:
        """The next response, which has to be a hook: its name and pid."""
        response = self.receive()
        assert response.type == rpc_pb2.NOTIFY
        assert response.success
        return response.notify.script, response.notify.pid

    def answer(self, agreed: bool = True) -> None:
        """Answer a hook."""
        answer = rpc_pb2.criu_req(type=rpc_pb2.NOTIFY, notify_success=agreed)
        self.socket.send(answer.SerializeToString())

    def kill(self) -> None:
        """Kill the program that was started."""
        os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> int:
        """Its exit status; negative for a signal."""
        if self._status is None:
            _, status = os.waitpid(self.pid, 0)
            self._status = os.waitstatus_to_exitcode(status)
        return self._status
