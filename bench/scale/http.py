"""A connection to the API that is kept: what a client costs is not what is measured."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from urllib.parse import urlsplit


class Refused(Exception):
    """The API answered with an error; the text is the answer."""


@dataclass(slots=True)
class Connection:
    """One, for one request after the other."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    token: str

    @classmethod
    async def open(cls, url: str, token: str) -> Connection:
        """Connect to the server of a URL."""
        parts = urlsplit(url)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        return cls(reader, writer, token)

    async def get(self, path: str) -> tuple[str, float]:
        """The body, and the seconds from the request's first byte to the answer's last.

        Raises:
            Refused: the status is not 200.
        """
        return await self._ask(f"GET {path}", b"")

    async def post(self, path: str, body: object) -> tuple[str, float]:
        """The same for a POST of JSON."""
        return await self._ask(f"POST {path}", json.dumps(body).encode())

    def close(self) -> None:
        """End it."""
        self.writer.close()

    async def _ask(self, what: str, body: bytes) -> tuple[str, float]:
        head = (
            f"{what} HTTP/1.1\r\nHost: api\r\nAuthorization: Bearer {self.token}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        began = time.perf_counter()
        self.writer.write(head.encode() + body)
        answer = (await self.reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(answer.partition("content-length:")[2].split("\r\n", 1)[0])
        text = (await self.reader.readexactly(length)).decode()
        seconds = time.perf_counter() - began
        if answer.split()[1] != "200":
            raise Refused(f"{what}: {answer.split()[1]} {text}")
        return text, seconds
