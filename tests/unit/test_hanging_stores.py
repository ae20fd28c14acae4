"""Stores that do not answer: who looks into them holds up nobody else.

A checkpoint that waits for its last byte waits in one of the event loop's threads, frozen.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from agent.actions import Engine, PodRestores
from agent.actions.rows import Attempt
from agent.config import Tools
from agent.messages.model import ActionRequest, CheckpointSpec
from agent.store import open_store
from agent.targets import RuncTarget
from agent.verify import verify
from tests.scripted_executors import settings


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of a store whose server takes connections, and says nothing."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        yield f"s3://bucket?endpoint=http://127.0.0.1:{server.getsockname()[1]}&path_style=true"


async def leaves_threads(works: list[Coroutine[None, None, object]]) -> None:
    """To others, while it waits and after it was given up."""
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(4))
    waiting = [asyncio.create_task(work) for work in works]
    await asyncio.wait(waiting, timeout=1.0)
    assert not any(each.done() for each in waiting)
    for _ in range(2):
        begun = time.monotonic()
        await asyncio.wait_for(asyncio.to_thread(lambda: None), 5)
        assert time.monotonic() - begun < 1.0
        for each in waiting:
            each.cancel()
        await asyncio.wait(waiting)


async def test_actions_that_a_dead_agent_has_left(silent: str, tmp_path: Path) -> None:
    nothing = Path("/nonexistent")
    engine = Engine(settings(tmp_path), Tools(nothing, nothing), PodRestores())
    attempt = Attempt("sample", silent)
    left = [ActionRequest(f"a{each}", CheckpointSpec(RuncTarget("web"))) for each in range(12)]
    await leaves_threads([engine.aftermath(each, attempt, None) for each in left])
    engine.close()


async def test_verifications(silent: str) -> None:
    """Whose clients give up and come again."""
    await leaves_threads([verify(open_store(silent), "sample") for _ in range(12)])
