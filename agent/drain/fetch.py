"""One request to a cloud's metadata service: plain HTTP on a link-local address.

Such a service is never behind a proxy, whatever the environment says. Nothing of an answer is
believed: it may be of any length, or never end.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

# Bytes of head and of body. The longest that a service says is a list of a few events.
_MOST: Final = 64 << 10


class FetchFailed(Exception):
    """No answer, or none that is HTTP; the text says why."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What was answered; the headers' names are in small letters."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        """The body, whatever it is."""
        return self.body.decode(errors="replace").strip()


async def fetch(
    url: str,
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    seconds: float,
) -> Answer:
    """Ask ``url`` and read the answer to its end.

    Args:
        seconds: for all of it.

    Raises:
        FetchFailed
    """
    parts = urlsplit(url)
    target = parts.path or "/"
    if parts.query:
        target += f"?{parts.query}"
    lines = [f"{method} {target} HTTP/1.1", f"Host: {parts.netloc}", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    if method == "PUT":
        lines.append("Content-Length: 0")
    try:
        async with asyncio.timeout(seconds):
            request = "\r\n".join(lines).encode() + b"\r\n\r\n"
            return _parse(await _exchange(parts.hostname or "", parts.port or 80, request))
    except TimeoutError:
        raise FetchFailed(f"no answer within {seconds:g} s") from None
    except OSError as error:
        raise FetchFailed(error.strerror or str(error)) from error
    except (http.client.HTTPException, ValueError) as error:
        raise FetchFailed(f"the answer is not HTTP: {type(error).__name__}") from error


async def _exchange(host: str, port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(host, port, limit=_MOST)
    try:
        writer.write(request)
        head = b""
        with contextlib.suppress(asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            head = await reader.readuntil(b"\r\n\r\n")
        if not head:
            raise FetchFailed("the answer is not HTTP")
        return head + await _body(head, reader)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def _body(head: bytes, reader: asyncio.StreamReader) -> bytes:
    """As long as it says, or to the end of the connection: not every service closes it."""
    headers = http.client.parse_headers(io.BytesIO(head.partition(b"\r\n")[2]))
    length = headers.get("content-length", "")
    # More digits than these are more than _MOST, and than Python makes a number of.
    known = length.isascii() and length.isdigit() and len(length) < 10
    left = min(int(length), _MOST) if known else _MOST
    if headers.get("transfer-encoding", "").lower() == "chunked":
        left = _MOST
    found = b""
    while left > 0 and not found.endswith(b"\r\n0\r\n\r\n") and found != b"0\r\n\r\n":
        more = await reader.read(left)
        if not more:
            break
        found += more
        left -= len(more)
    return found


class _Recorded:
    """An answer that has been read, as the standard library's parser wants to read it."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw

    def makefile(self, _mode: str) -> io.BytesIO:
        return io.BytesIO(self._raw)


def _parse(raw: bytes) -> Answer:
    response = http.client.HTTPResponse(_Recorded(raw))  # type: ignore[arg-type]
    response.begin()
    # Raises where less came than was promised.
    body = response.read()
    headers = {name.lower(): value for name, value in response.getheaders()}
    return Answer(response.status, headers, body)
