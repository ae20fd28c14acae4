"""Ports for servers that a test kills and starts again while clients try to connect."""

from __future__ import annotations

import secrets
import socket

from tests.servers.postgres import PORTS, TRIES


def free_port() -> int:
    """One of loopback that nobody listens on, and that no client's connection is ever given.

    A client of the server that is away may be given the server's own port otherwise, one in some
    twenty thousand attempts, and is then connected to itself.
    """
    for port in secrets.SystemRandom().sample(PORTS, TRIES):
        with socket.socket() as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                tried.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError(f"none of {TRIES} ports is free")
