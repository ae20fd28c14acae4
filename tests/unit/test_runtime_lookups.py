"""Containers that ask while a store, or the Actions API, does not answer."""

from __future__ import annotations

import asyncio
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.fakes.scripted_worker import ScriptedWorker
from tests.runtime_nodes import Client, Node, serving
from tests.scripted_executors import executor


async def test_a_thread_for_a_thaw(tmp_path: Path) -> None:
    """However many wait for an answer: a pod may be frozen until one is free."""
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(4))
    async with executor(tmp_path / "journal", ScriptedWorker()) as acting:
        with socket.create_server(("127.0.0.1", 0), backlog=64) as silent:
            url = f"http://127.0.0.1:{silent.getsockname()[1]}"
            (tmp_path / "token").touch()
            token = tmp_path / "token"
            node = Node(tmp_path, acting, limit_seconds=2.0, api_url=url, api_token_file=token)
            async with serving(node):
                asking = await _wave(node, 12)
                begun = time.monotonic()
                await asyncio.wait_for(asyncio.to_thread(lambda: None), 5)
                assert time.monotonic() - begun < 1.0
                # And after they were told: their threads still wait.
                for client in asking:
                    word, content = await client.hear()
                    assert (word, "not done within 2 s" in content["reason"]) == ("cold", True)
                begun = time.monotonic()
                await asyncio.wait_for(asyncio.to_thread(lambda: None), 5)
                assert time.monotonic() - begun < 1.0
                # So are those that decide over a pod of which nothing is to be found out.
                again = await node.ask("nightly", sandbox="s0", uid="u0")
                assert (await again.hear())[0] == "cold"


async def _wave(node: Node, count: int) -> list[Client]:
    return [
        await node.ask("nightly", sandbox=f"s{number}", uid=f"u{number}") for number in range(count)
    ]
