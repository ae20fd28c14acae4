"""A cloud's metadata service on a local port, as AWS, Google and Azure document theirs.

Whoever asks it in the wrong way is refused, as they do.
"""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

MACHINE = "node-1"


@dataclass
class Metadata:
    """What it says. ``seconds`` are those until the machine goes; None: it stays.

    Attributes:
        broken: answered to everything, in the place of what would be said.
        asked: the paths that were asked for.
    """

    port: int = 0
    seconds: float | None = None
    broken: bytes | None = None
    asked: list[str] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)
    changed: threading.Condition = field(default_factory=threading.Condition)

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}"

    def announce(self, seconds: float | None) -> None:
        """From now on the machine goes in so many seconds; None: it stays after all."""
        with self.changed:
            self.seconds = seconds
            self.changed.notify_all()

    def when(self) -> datetime:
        """The moment at which it goes."""
        return datetime.now(UTC) + timedelta(seconds=self.seconds or 0.0)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    said: Metadata

    def do_PUT(self) -> None:
        ttl = self.headers.get("X-aws-ec2-metadata-token-ttl-seconds", "")
        if self.path != "/latest/api/token" or not 1 <= int(ttl or 0) <= 21_600:
            return self._answer(400, b"")
        token = secrets.token_urlsafe(40)
        self.said.tokens.add(token)
        return self._answer(200, token.encode())

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        self.said.asked.append(parts.path)
        if self.said.broken is not None:
            self.wfile.write(self.said.broken)
            self.close_connection = True
            return None
        if parts.path == "/latest/meta-data/spot/instance-action":
            return self._aws()
        if parts.path == "/computeMetadata/v1/instance/preempted":
            return self._gcp(parse_qs(parts.query))
        if parts.path.startswith("/metadata/"):
            return self._azure(parts.path)
        return self._answer(404, b"")

    def _aws(self) -> None:
        if self.headers.get("X-aws-ec2-metadata-token") not in self.said.tokens:
            return self._answer(401, b"")
        if self.said.seconds is None:
            return self._answer(404, b"<html>Not Found</html>")
        action = {"action": "terminate", "time": f"{self.said.when():%Y-%m-%dT%H:%M:%SZ}"}
        return self._answer(200, json.dumps(action).encode())

    def _gcp(self, query: dict[str, list[str]]) -> None:
        if self.headers.get("Metadata-Flavor") != "Google":
            return self._answer(403, b"")
        with self.said.changed:
            if query.get("wait_for_change") == ["true"] and query["last_etag"] == [self._etag()]:
                self.said.changed.wait(float(query["timeout_sec"][0]))
            body = b"FALSE" if self.said.seconds is None else b"TRUE"
            headers = {"Metadata-Flavor": "Google", "ETag": self._etag()}
        return self._answer(200, body, headers)

    def _etag(self) -> str:
        return "a1b2" if self.said.seconds is None else "c3d4"

    def _azure(self, path: str) -> None:
        if self.headers.get("Metadata") != "true":
            return self._answer(400, b"")
        if path == "/metadata/instance/compute/name":
            return self._answer(200, MACHINE.encode())
        # Another machine of the set always goes, and this one is always about to be paused.
        events = [
            {"EventType": "Reboot", "Resources": ["node-2"], "NotBefore": ""},
            {"EventType": "Freeze", "Resources": [MACHINE], "NotBefore": ""},
        ]
        if self.said.seconds is not None:
            before = format_datetime(self.said.when(), usegmt=True)
            event = {"EventType": "Preempt", "Resources": [MACHINE], "NotBefore": before}
            events.append(event)
        body = json.dumps({"DocumentIncarnation": 1, "Events": events}).encode()
        # In chunks, as its load balancer may do.
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for part in (body[:10], body[10:]):
            self.wfile.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
        self.wfile.write(b"0\r\n\r\n")

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # Questions that wait for a change do not hold up the end of a test.
    block_on_close = False


@contextmanager
def metadata_server() -> Iterator[Metadata]:
    """One that has nothing to announce yet."""
    said = Metadata()
    handler = type("Handler", (_Handler,), {"said": said})
    with _Server(("127.0.0.1", 0), handler) as server:
        said.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield said
        finally:
            said.announce(said.seconds)
            server.shutdown()
            thread.join()
