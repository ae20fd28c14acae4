"""More containers than can come back at a time: they wait, and lose nothing by it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.fakes.scripted_worker import ScriptedWorker
from tests.runtime_nodes import Node, serving, soon
from tests.scripted_executors import executor

BUSY = "the node is busy with other restores"


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    """One restore at a time, and a second for each."""
    async with executor(tmp_path / "journal", ScriptedWorker()) as acting:
        made = Node(tmp_path, acting, limit_seconds=1.0)
        checkpoint = made.settings.checkpoint.model_copy(update={"concurrency": 1})
        made.settings = made.settings.model_copy(update={"checkpoint": checkpoint})
        made.server = made.new_server()
        async with serving(made):
            yield made


async def test_another_pods_turn(node: Node) -> None:
    path = node.checkpoint()
    first = await node.ask(path)
    await first.until_run()
    second = await node.ask(path, sandbox="s2", uid="u2")
    word, content = await second.hear()
    assert (word, BUSY in content["reason"]) == ("failed", True)
    assert node.record(sandbox="s2")["state"] == "failed"
    second.leave()
    # It keeps its turn until it has undone everything.
    assert (await first.hear())[0] == "cold"
    first.leave()
    again = await node.ask(path, sandbox="s2", uid="u2", id="again")
    await again.until_run()
    again.leave()


async def test_a_turn_that_comes_late(node: Node) -> None:
    """There is some time left, but not what a restore may take."""
    path = node.checkpoint()
    first = await node.ask(path)
    await first.until_run()
    second = await node.ask(path, sandbox="s2", uid="u2")
    await asyncio.sleep(0.5)
    await first.say({"ended": {"status": 0, "pid": os.getpid()}})
    assert await first.hear() == ("restored", {})
    await second.until_run()
    word, content = await second.hear()
    assert (word, BUSY in content["reason"]) == ("failed", True)
    second.leave()
    await soon(lambda: node.record(sandbox="s2")["state"] == "failed")
    again = await node.ask(path, sandbox="s2", uid="u2", id="again")
    await again.until_run()
    again.leave()


async def test_the_same_pods_next_container(node: Node) -> None:
    """What is written down belongs to the one before."""
    path = node.checkpoint()
    first = await node.ask(path)
    await first.until_run()
    again = await node.ask(path, id="again")
    word, content = await again.hear()
    assert (word, BUSY in content["reason"]) == ("failed", True)
    again.leave()
    assert node.record()["container_id"] == "id-app"
