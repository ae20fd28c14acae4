"""Tables of nftables, as libnftables makes them for CRIU, without that library."""

from __future__ import annotations

import os
import socket
import struct
from pathlib import Path

from tests.networks import socket_in

# Of the kernel's nf_tables.h, netlink.h, and netfilter.h.
_NEW_TABLE, _DELETE_TABLE, _NEW_CHAIN = 0, 2, 3
_REQUEST, _ACK, _CREATE = 0x1, 0x4, 0x400
_INPUT, _OUTPUT = 1, 3
_NESTED = 0x8000


def lock(namespace: Path, name: str, *, flags: int = 0) -> None:
    """Let nothing pass there any more, by a table like CRIU's."""
    chains = [
        (_NEW_CHAIN, _chain(name, chain, hook))
        for chain, hook in {"input": _INPUT, "output": _OUTPUT}.items()
    ]
    with _kernel(namespace) as kernel:
        _ask(kernel, (_NEW_TABLE, _table(name, flags)), *chains)


def make(namespace: Path, name: str, *, flags: int = 0) -> socket.socket:
    """A table without chains, which stops nobody; its owner, if the flags say that it has one."""
    kernel = _kernel(namespace)
    _ask(kernel, (_NEW_TABLE, _table(name, flags)))
    return kernel


def remove(namespace: Path, name: str) -> None:
    """Raises OSError: there is none."""
    with _kernel(namespace) as kernel:
        _ask(kernel, (_DELETE_TABLE, _attribute(1, _text(name))))


def _kernel(namespace: Path) -> socket.socket:
    return socket_in(namespace, socket.AF_NETLINK, socket.SOCK_RAW, 12)


def _table(name: str, flags: int) -> bytes:
    return _attribute(1, _text(name)) + _attribute(2, struct.pack(">I", flags))


def _chain(table: str, name: str, hook: int) -> bytes:
    """A base chain of the kind `filter`, that drops everything."""
    where = _attribute(1, struct.pack(">I", hook)) + _attribute(2, struct.pack(">i", 0))
    names = _attribute(1, _text(table)) + _attribute(3, _text(name))
    policy = _attribute(5, struct.pack(">I", 0)) + _attribute(7, _text("filter"))
    return names + _attribute(4 | _NESTED, where) + policy


def _ask(kernel: socket.socket, *wishes: tuple[int, bytes]) -> None:
    """All of it or nothing. Raises OSError."""
    begin, end = (_message(kind, _REQUEST, (0, 0, 10), b"") for kind in (0x10, 0x11))
    messages = [
        _message(10 << 8 | what, _REQUEST | _ACK | _CREATE, (1, 0, 0), attributes)
        for what, attributes in wishes
    ]
    kernel.send(b"".join([begin, *messages, end]))
    for _ in wishes:
        [number] = struct.unpack_from("=i", kernel.recv(1 << 16), 16)
        if number:
            raise OSError(-number, os.strerror(-number))


def _message(kind: int, flags: int, family: tuple[int, int, int], attributes: bytes) -> bytes:
    body = struct.pack(">BBH", *family) + attributes
    return struct.pack("=IHHII", 16 + len(body), kind, flags, 0, 0) + body


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + b"\0" * (-len(value) % 4)


def _text(word: str) -> bytes:
    return word.encode() + b"\0"
