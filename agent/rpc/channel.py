"""A way to a daemon: its address, the certificates it wants, and failures as our errors."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc
from grpc import aio

from agent.errors import AgentUnreachable, InvalidArgument
from agent.rpc.status import error_of, failure_of
from agent.rpc.tls import client_credentials

# As the server's: see agent.rpc.server.
MAX_ANSWER: Final = 64 << 20
# Of sun_path, without its last zero.
MAX_SOCKET_PATH: Final = 107

_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MAX_ANSWER),
    # A proxy in the environment is for the web; an agent's port is not behind it.
    ("grpc.enable_http_proxy", 0),
    # While a call is under way only. The server puts up with three times as many.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 20_000),
)

_HOST_PORT: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):[0-9]{1,5}")


@dataclass(frozen=True, slots=True)
class Tls:
    """Files of a client: its certificate, its key, and the authority that signs servers."""

    cert: Path | None = None
    key: Path | None = None
    ca: Path | None = None


@asynccontextmanager
async def open_channel(address: str, tls: Tls) -> AsyncIterator[aio.Channel]:
    """A channel to ``unix:/PATH`` or, over mutual TLS, ``HOST:PORT``. Nothing is connected yet.

    Raises:
        InvalidArgument: the address or one of the files cannot be used.
    """
    if address.startswith("unix:"):
        if len(address.removeprefix("unix:").encode()) > MAX_SOCKET_PATH:
            raise InvalidArgument("--agent", f"a socket's path has at most {MAX_SOCKET_PATH} bytes")
        channel = aio.insecure_channel(address, options=_OPTIONS)
    elif _HOST_PORT.fullmatch(address):
        credentials = client_credentials(tls.cert, tls.key, tls.ca)
        channel = aio.secure_channel(f"dns:///{address}", credentials, options=_OPTIONS)
    else:
        raise InvalidArgument("--agent", f"{address!r} is neither unix:/PATH nor HOST:PORT")
    async with channel:
        yield channel


@contextmanager
def translated(address: str) -> Iterator[None]:
    """A failed call as the error that the agent has answered, or AgentUnreachable."""
    try:
        yield
    except aio.AioRpcError as error:
        failure = failure_of(error.trailing_metadata())
        if failure is not None:
            raise error_of(failure) from None
        raise AgentUnreachable(address, _reason(error)) from None


def _reason(error: aio.AioRpcError) -> str:
    """gRPC's own words without its addresses and internals."""
    code, details = error.code(), str(error.details() or "")
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return "it did not answer in time"
    return details.rpartition("error: ")[2] or code.name
