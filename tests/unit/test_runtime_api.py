"""Names asked of the Actions API, at a server that answers whatever it is told to."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar
from urllib.parse import parse_qs, urlsplit

import pytest

from agent.errors import RestoreFailed
from agent.runtime.api import path_of_name
from agent.settings.restore import Restore


class _Handler(BaseHTTPRequestHandler):
    status: ClassVar[int] = 200
    body: ClassVar[bytes] = b""
    headers_sent: ClassVar[dict[str, str]] = {}
    seen: ClassVar[list[tuple[str, str | None]]] = []

    def do_GET(self) -> None:
        self.seen.append((self.path, self.headers["Authorization"]))
        self.send_response(self.status)
        for name, value in self.headers_sent.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: object) -> None:
        """Not into the tests' output."""


@contextmanager
def _answering(
    tmp_path: Path, status: int, body: bytes, headers: dict[str, str] | None = None
) -> Iterator[tuple[Restore, list[tuple[str, str | None]]]]:
    seen: list[tuple[str, str | None]] = []
    facts = {"status": status, "body": body, "headers_sent": headers or {}, "seen": seen}
    (tmp_path / "token").write_text("secret\n")
    with HTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), facts)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            url = f"http://127.0.0.1:{server.server_port}/api/"
            yield Restore(api_url=url, api_token_file=tmp_path / "token"), seen
        finally:
            server.shutdown()
            thread.join()


def test_a_path(tmp_path: Path) -> None:
    with _answering(tmp_path, 200, b"s3://bucket/abc\n") as (settings, seen):
        assert path_of_name("web & more", settings) == "s3://bucket/abc"
    [(asked, token)] = seen
    assert token == "Bearer secret"
    assert urlsplit(asked).path == "/api/v2/checkpoint/path"
    assert parse_qs(urlsplit(asked).query) == {"name": ["web & more"]}


@pytest.mark.parametrize("status", [400, 404])
def test_no_checkpoint_of_that_name(tmp_path: Path, status: int) -> None:
    with _answering(tmp_path, status, b"{}") as (settings, _):
        assert path_of_name("web", settings) is None


def test_an_empty_answer(tmp_path: Path) -> None:
    with _answering(tmp_path, 200, b"") as (settings, _):
        assert path_of_name("web", settings) is None


@pytest.mark.parametrize(("status", "body"), [(401, b""), (500, b"secret"), (200, b"x" * 5000)])
def test_what_is_no_answer(tmp_path: Path, status: int, body: bytes) -> None:
    with (
        _answering(tmp_path, status, body) as (settings, _),
        pytest.raises(RestoreFailed) as raised,
    ):
        path_of_name("web", settings)
    assert "secret" not in str(raised.value)


def test_the_token_follows_no_redirect(tmp_path: Path) -> None:
    with (
        _answering(tmp_path, 200, b"/elsewhere") as (elsewhere, seen),
        _answering(tmp_path, 302, b"", {"Location": elsewhere.api_url}) as (settings, _),
    ):
        with pytest.raises(RestoreFailed):
            path_of_name("web", settings)
        assert seen == []


def test_nobody_there(tmp_path: Path) -> None:
    with _answering(tmp_path, 200, b"") as (settings, _):
        pass
    with pytest.raises(RestoreFailed, match="cannot be asked"):
        path_of_name("web", settings)


@pytest.mark.parametrize(
    "url",
    [
        "http://api.example:8800", "ftp://127.0.0.1", "https://", "https://user:word@api", "api",
        "https://api/?a=b", "http://127.0.0.1.example.com.", "http://[::1", "https://api:0",
    ],
)  # fmt: skip
def test_urls_that_the_token_is_not_sent_to(tmp_path: Path, url: str) -> None:
    with pytest.raises(ValueError, match=r"api_url|127"):
        Restore(api_url=url, api_token_file=tmp_path / "token")
