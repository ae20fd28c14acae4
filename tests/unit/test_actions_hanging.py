"""Actions of a dead agent whose store does not answer: they hold up nobody else."""

from __future__ import annotations

import asyncio
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from agent.actions import Engine, PodRestores
from agent.actions.rows import Attempt
from agent.config import Tools
from agent.messages.model import ActionRequest, CheckpointSpec
from agent.targets import RuncTarget
from tests.scripted_executors import settings


async def test_a_thread_for_a_thaw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(4))
    nothing = Path("/nonexistent")
    engine = Engine(settings(tmp_path), Tools(nothing, nothing), PodRestores())
    with socket.create_server(("127.0.0.1", 0), backlog=64) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        attempt = Attempt("sample", f"s3://bucket?endpoint={endpoint}&path_style=true")
        left = [
            asyncio.create_task(
                engine.aftermath(
                    ActionRequest(f"a{each}", CheckpointSpec(RuncTarget("web"))), attempt, None
                )
            )
            for each in range(12)
        ]
        await asyncio.wait(left, timeout=1.0)
        begun = time.monotonic()
        await asyncio.wait_for(asyncio.to_thread(lambda: None), 5)
        assert time.monotonic() - begun < 1.0
        for each in left:
            each.cancel()
        await asyncio.wait(left)
    engine.close()
