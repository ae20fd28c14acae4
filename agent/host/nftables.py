"""CRIU's network lock with nftables, seen and taken back over netlink: `nft` need not be there.

Where it locks so, it makes one table of the family inet in the container's network namespace. Its
chains ``input`` and ``output`` drop whatever is not CRIU's own. The table is called ``CRIU-`` and
then the root task's pid, or since CRIU 4.1 the beginning of the dump's UUID; a restore uses the
dump's name, and finds what that has left. (criu/net.c of CRIU 4.2.)
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

_PREFIX = b"CRIU-"

# The node's network: our own, or in a DaemonSet init's, which not everybody may look at.
_NODES = (Path("/proc/self/ns/net"), Path("/proc/1/ns/net"))

# As many as a pod may have locks, and far more. Whoever is root there can make any number.
_MOST_TABLES = 200

# Of include/uapi/linux: netlink.h, netfilter/nfnetlink.h, netfilter/nf_tables.h.
_NETLINK_NETFILTER = 12
_CLONE_NEWNET = 0x40000000
_REQUEST, _ACK, _DUMP = 0x1, 0x4, 0x300
_ERROR, _DONE = 2, 3
_BEGIN, _END = 0x10, 0x11
_NF_TABLES = 10
_GET_TABLE, _DELETE_TABLE = _NF_TABLES << 8 | 1, _NF_TABLES << 8 | 2
_INET = 1
_NAME, _FLAGS = 1, 2

# What a kernel without nf_tables says: of the socket, and of what it is asked over it.
_NONE = (errno.EPROTONOSUPPORT, errno.EOPNOTSUPP, errno.EINVAL)

# Seconds. The kernel answers at once, unless it is changing the rules of thousands of others.
_TIMEOUT = 20.0

# A header, and nfgenmsg; then attributes, each padded to four bytes.
_HEADER, _FAMILY, _ATTRIBUTE = struct.Struct("=IHHII"), struct.Struct(">BBH"), struct.Struct("=HH")


def is_locked(namespace: Path) -> bool:
    """Whether a CRIU lets nothing pass there. Blocks. Raises OSError."""
    return bool(_locks(namespace))


def unlock(namespace: Path) -> bool:
    """Take all locks back; whether there were any. Blocks. Raises OSError: one is still there."""
    found, failure = _locks(namespace)[:_MOST_TABLES], None
    if found:
        with _socket_in(namespace) as kernel:
            for name in found:
                try:
                    _delete(kernel, name)
                except OSError as error:
                    failure = error
    if failure is not None:
        raise failure
    return bool(found)


def _locks(namespace: Path) -> list[bytes]:
    """Names of the tables; none of the node's own, where another CRIU may be at work."""
    if any(_is_same(namespace, one) for one in _NODES):
        return []
    try:
        with _socket_in(namespace) as kernel:
            return _tables(kernel)
    except OSError as error:
        if error.errno in _NONE:
            return []
        raise


def _is_same(namespace: Path, other: Path) -> bool:
    with contextlib.suppress(OSError):
        return namespace.samefile(other)
    return False


def _socket_in(namespace: Path) -> socket.socket:
    """To the kernel, about that namespace. Raises OSError."""
    made: list[socket.socket] = []
    failed: list[OSError] = []

    def make() -> None:
        try:
            _enter(namespace)
            made.append(socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER))
        except OSError as error:
            failed.append(error)

    # Of a process with threads only one can enter another namespace, and that ends with it.
    thread = Thread(target=make)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    made[0].settimeout(_TIMEOUT)
    # From now on it takes messages of the kernel alone, not of somebody who is root there.
    made[0].connect((0, 0))
    return made[0]


def _enter(namespace: Path) -> None:
    descriptor = os.open(namespace, os.O_RDONLY)
    try:
        if ctypes.CDLL(None, use_errno=True).setns(descriptor, _CLONE_NEWNET):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
    finally:
        os.close(descriptor)


def _tables(kernel: socket.socket) -> list[bytes]:
    kernel.send(_message(_GET_TABLE, _REQUEST | _DUMP))
    found = []
    for kind, body in _answers(kernel):
        if kind == _DONE:
            break
        attributes = dict(_attributes(body[_FAMILY.size :]))
        # CRIU's have no flags: one that its maker alone can delete, or that is asleep, is not its.
        if not any(attributes.get(_FLAGS, b"")):
            found.append(attributes.get(_NAME, b"").rstrip(b"\0"))
    return [name for name in found if name.startswith(_PREFIX)]


def _delete(kernel: socket.socket, name: bytes) -> None:
    padding = b"\0" * (-len(name) % 4 or 4)
    padded = _ATTRIBUTE.pack(_ATTRIBUTE.size + len(name) + 1, _NAME) + name + padding
    begin = _message(_BEGIN, _REQUEST, family=0, subsystem=_NF_TABLES)
    end = _message(_END, _REQUEST, family=0, subsystem=_NF_TABLES)
    kernel.send(begin + _message(_DELETE_TABLE, _REQUEST | _ACK, padded) + end)
    # There is none any more where somebody opens it for another container of the pod.
    with contextlib.suppress(FileNotFoundError):
        next(_answers(kernel))


def _message(
    kind: int, flags: int, attributes: bytes = b"", *, family: int = _INET, subsystem: int = 0
) -> bytes:
    body = _FAMILY.pack(family, 0, subsystem) + attributes
    return _HEADER.pack(_HEADER.size + len(body), kind, flags, 0, 0) + body


def _answers(kernel: socket.socket) -> Iterator[tuple[int, bytes]]:
    """Messages from the kernel, type and body; without end. Raises OSError: one is an error."""
    while True:
        # The kernel fills 32 KiB at most.
        data = kernel.recv(1 << 16)
        while data:
            length, kind, _, _, _ = _HEADER.unpack_from(data)
            body = data[_HEADER.size : length]
            if kind == _ERROR and (number := -struct.unpack_from("=i", body)[0]):
                raise OSError(number, os.strerror(number))
            yield kind, body
            data = data[length + -length % 4 :]


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data)
        yield kind, data[_ATTRIBUTE.size : length]
        data = data[length + -length % 4 :]
