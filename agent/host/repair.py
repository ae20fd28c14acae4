"""Sockets that a killed CRIU has left in repair mode, in which no process can use them.

CRIU reads a TCP connection by putting its socket into that mode (TCP_REPAIR, tcp(7) does not know
it; Documentation of CRIU's libsoccr does), and ends it when it is done. Killed meanwhile, it leaves
the process with a connection on which every read and write fails.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
from collections.abc import Iterable, Iterator

# Of include/uapi/linux/tcp.h, and the same number on all architectures since 5.6.
_TCP_REPAIR = 19
_SYS_PIDFD_GETFD = 438


def end_repair(pids: Iterable[int]) -> int:
    """Make the sockets of these processes usable again; how many were not.

    Takes 0.1 ms per hundred descriptors and asks nobody, so it can be done inside a freeze.
    """
    repaired = 0
    for connection in tcp_sockets(pids):
        with connection:
            repaired += _end_repair(connection)
    return repaired


def tcp_sockets(pids: Iterable[int]) -> Iterator[socket.socket]:
    """Descriptors of our own, to be closed, for the TCP sockets of processes, each inode once."""
    seen: set[str] = set()
    for pid in pids:
        yield from _sockets(pid, seen)


def _end_repair(connection: socket.socket) -> bool:
    try:
        if not connection.getsockopt(socket.IPPROTO_TCP, _TCP_REPAIR):
            return False
        connection.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR, 0)
        # The kernel has forgotten what it was. As a server's sockets mostly have it: without, a
        # server that is started again could not listen as long as this connection is there.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    except OSError:
        return False  # no TCP, or closed meanwhile
    return True


def _sockets(pid: int, seen: set[str]) -> Iterator[socket.socket]:
    with contextlib.suppress(OSError):  # it has ended
        handle = os.pidfd_open(pid)
        try:
            for name in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):  # closed since it was listed
                    link = os.readlink(f"/proc/{pid}/fd/{name}")
                    if link.startswith("socket:") and link not in seen:
                        seen.add(link)
                        found = _socket(_copied(handle, int(name)))
                        if found.family in (socket.AF_INET, socket.AF_INET6):
                            yield found
                        else:
                            found.close()
        finally:
            os.close(handle)


def _socket(descriptor: int) -> socket.socket:
    """Takes the descriptor, also where this fails: of those without an address (AF_ALG), and where
    it is another file by now. Raises OSError.
    """
    try:
        return socket.socket(fileno=descriptor)
    except OSError:
        os.close(descriptor)
        raise


def _copied(handle: int, descriptor: int) -> int:
    """Another process's descriptor as one of ours. Raises OSError."""
    copied: int = ctypes.CDLL(None, use_errno=True).syscall(_SYS_PIDFD_GETFD, handle, descriptor, 0)
    if copied < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    os.set_inheritable(copied, False)
    return copied
