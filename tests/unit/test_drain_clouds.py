"""What clouds announce, asked of servers that speak as they do, and of such that do not."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from agent.drain.clouds import SERVICES, CloudSource
from agent.drain.fetch import FetchFailed, fetch
from agent.drain.notice import Notice
from tests.servers.metadata import Metadata, metadata_server
from tests.waiting import eventually_async

CLOUDS = sorted(SERVICES)


@pytest.fixture
def metadata() -> Iterator[Metadata]:
    with metadata_server() as server:
        yield server


@asynccontextmanager
async def watching(cloud: str, url: str) -> AsyncIterator[list[Notice | None]]:
    """What a source tells, as it tells it. It asks often here."""
    told: list[Notice | None] = []

    def tell(notice: Notice | None) -> asyncio.Event:
        told.append(notice)
        return asyncio.Event()

    service = SERVICES[cloud]()
    service.pause = min(service.pause, 0.02)
    task = asyncio.create_task(CloudSource(cloud, service, url).watch(tell))
    try:
        yield told
        assert not task.done(), task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@pytest.mark.parametrize("cloud", CLOUDS)
async def test_a_notice_comes_and_is_taken_back(
    metadata: Metadata, cloud: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nobody listens there: whoever obeys it never hears anything.
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    async with watching(cloud, metadata.url) as told:
        await eventually_async(lambda: len(metadata.asked) > 1, "two questions")
        assert told == []
        metadata.announce(3600.0)
        await eventually_async(lambda: bool(told), "the notice")
        notice = told[0]
        assert notice is not None
        assert notice.seconds is not None
        # In whole seconds; by Google not at all, as there it is always half a minute.
        least, most = (30.0, 30.0) if cloud == "gcp" else (3000.0, 3600.0)
        assert least <= notice.seconds <= most
        metadata.announce(None)
        await eventually_async(lambda: told[-1] is None, "the notice being taken back")


@pytest.mark.parametrize("cloud", CLOUDS)
async def test_a_machine_that_is_to_go_already_is_known_from_the_start(
    metadata: Metadata, cloud: str
) -> None:
    metadata.announce(30.0)
    async with watching(cloud, metadata.url) as told:
        await eventually_async(lambda: bool(told), "the notice")


async def test_a_service_that_was_away_is_asked_again(metadata: Metadata) -> None:
    metadata.broken = b"nonsense"
    metadata.announce(30.0)
    async with watching("azure", metadata.url) as told:
        await eventually_async(lambda: bool(metadata.asked), "a question")
        assert told == []
        metadata.broken = None
        await eventually_async(lambda: bool(told), "the notice")


NONSENSE = [
    b"",
    b"\r\n\r\n",
    b"nonsense",
    b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\nx",
    b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 500 + b"\r\n",
    b"HTTP/1.1 200 OK\r\n" + b"a" * 100_000,
    b"HTTP/1.1 200 OK\r\n\r\n" + b"[" * 60_000,
    b'HTTP/1.1 200 OK\r\n\r\n{"Events": 7, "action": [], "time": {}}',
    b'HTTP/1.1 200 OK\r\n\r\n{"Events": [7, {"EventType": [], "Resources": 1}]}',
    b'HTTP/1.1 200 OK\r\n\r\n{"Events": [{"EventType": "Preempt", "Resources": 1}]}',
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n0\r\n\r\n",
    b"HTTP/1.1 503 Unavailable\r\nContent-Length: 0\r\n\r\n",
]


@pytest.mark.parametrize("cloud", CLOUDS)
async def test_nonsense_is_no_notice_and_no_crash(metadata: Metadata, cloud: str) -> None:
    service = SERVICES[cloud]()
    # For AWS: its token is there already.
    assert await service.ask(metadata.url) is None
    for broken in NONSENSE:
        metadata.broken = broken
        with contextlib.suppress(FetchFailed):
            assert await service.ask(metadata.url) is None
    metadata.broken = None
    metadata.announce(30.0)
    assert await service.ask(metadata.url) is not None


@pytest.mark.parametrize(
    "when",
    [
        "soon",
        "Mon, 01 Jan 99999999999999999999 00:00:00 GMT",
        "Mon, 01 Jan 2035 00:00:00 +99999999999999",
        # By a clock that is wrong. The node is there, and so are its pods.
        "2020-01-01T00:00:00Z",
    ],
)
async def test_a_time_that_cannot_be_is_none(metadata: Metadata, when: str) -> None:
    service = SERVICES["aws"]()
    assert await service.ask(metadata.url) is None
    body = json.dumps({"action": "terminate", "time": when}).encode()
    metadata.broken = b"HTTP/1.1 200 OK\r\n\r\n" + body
    assert await service.ask(metadata.url) == Notice("spot instance: terminate", None)


@asynccontextmanager
async def answering(endless: bool) -> AsyncIterator[str]:
    """A server that says something for ever, or nothing; its address."""
    ended = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if endless:
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        with contextlib.suppress(OSError):
            while endless or await reader.read(1000):
                if endless:
                    writer.write(bytes(10_000))
                    await writer.drain()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        ended.set()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        await ended.wait()


async def test_an_answer_has_an_end() -> None:
    async with answering(endless=True) as url:
        answer = await fetch(url, seconds=20)
        assert len(answer.body) <= 64 << 10


async def test_silence_has_an_end() -> None:
    async with answering(endless=False) as url:
        with pytest.raises(FetchFailed, match="no answer"):
            await fetch(url, seconds=0.05)
    with pytest.raises(FetchFailed):
        await fetch(url, seconds=5)
