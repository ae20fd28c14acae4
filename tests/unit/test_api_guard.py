"""What goes around every request, and the page's files, asked without a port."""

from __future__ import annotations

import pytest
from prometheus_client import generate_latest
from starlette.types import Message

from agent.api.app import build
from agent.api.database import Database
from agent.api.errors import NoSuchPage
from agent.api.metrics import ApiMetrics
from agent.api.parts import Parts
from agent.api.routes.page import page_file
from agent.events import Control
from agent.settings import Nats, Settings


async def ask(parts: Parts, method: str, path: str) -> int:
    """The status of an answer to nobody in particular."""
    statuses: list[int] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [],
        "client": ("192.0.2.1", 1),
        "server": ("127.0.0.1", 8800),
    }
    await build(parts)(scope, receive, send)
    return statuses[0]


async def test_words_that_are_no_methods_are_not_counted_one_by_one(database: Database) -> None:
    """Else whoever has no token fills the memory, a word at a time."""
    settings = Settings(nats=Nats(url="nats://127.0.0.1:1"))
    parts = Parts(settings, database, Control(settings.nats, "api"), ApiMetrics("test"))
    for number in range(30):
        assert await ask(parts, f"BREW{number}", "/v2/actions") in (401, 429)
    assert await ask(parts, "GET", "/healthz") == 200
    told = generate_latest(parts.metrics.registry).decode()
    assert "BREW" not in told
    assert 'method="other"' in told
    assert 'method="GET",route="/healthz"' in told


@pytest.mark.parametrize("name", ["x" * 300 + ".js", "\0.js", "..", "__init__.py", ""])
async def test_files_that_the_page_has_not(name: str) -> None:
    with pytest.raises(NoSuchPage):
        await page_file(name)
    assert (await page_file("style.css")).status_code == 200
