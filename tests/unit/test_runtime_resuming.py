"""An agent that is restarted between two containers of a pod, and the pod's action."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.manifest import MANIFEST
from agent.messages.model import State
from tests.runtime_nodes import ACTION, Node, reporting, soon


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    """Its server has ended after the first container, and has not been started again."""
    async with reporting(tmp_path) as made:
        client = await made.ask(made.checkpoint(), "app", ACTION)
        await client.until_run()
        await client.say({"ended": {"status": 0, "pid": os.getpid()}})
        assert await client.hear() == ("restored", {})
        client.leave()
        await soon(lambda: made.operations() == [])
        await made.server.stop(5.0)
        made.server = made.new_server()
        yield made


def manifest_of(node: Node) -> Path:
    return node.directory / "store" / "sample" / MANIFEST


async def test_a_store_that_does_not_answer_just_then(node: Node) -> None:
    manifest = manifest_of(node)
    kept = manifest.rename(node.directory / "kept")
    with socket.socket(socket.AF_UNIX) as made:
        # Nobody can open it.
        made.bind(str(manifest))
    await node.server.start()
    await asyncio.sleep(0.7)
    assert (await node.executor.get(ACTION)).state is State.PROCESSING
    kept.rename(manifest)
    client = await node.ask("sample", "side", ACTION)
    await client.until_run()
    await client.say({"ended": {"status": 0, "pid": os.getpid()}})
    assert await client.hear() == ("restored", {})
    client.leave()
    ended = await asyncio.wait_for(node.executor.wait(ACTION), 20)
    assert ended.state is State.READY


async def test_a_checkpoint_that_is_gone(node: Node) -> None:
    manifest_of(node).unlink()
    await node.server.start()
    ended = await asyncio.wait_for(node.executor.wait(ACTION), 20)
    assert ended.event.failure is not None
    assert ended.event.failure.code == "checkpoint_not_found"


async def test_a_defect(node: Node) -> None:
    """Whoever waits hears of it now, and not after ten minutes that it was the kubelet's fault."""
    # No check of settings lets that through.
    storage = node.settings.storage.model_copy(update={"store": 7})
    node.settings = node.settings.model_copy(update={"storage": storage})
    node.server = node.new_server()
    await node.server.start()
    ended = await asyncio.wait_for(node.executor.wait(ACTION), 20)
    assert ended.event.failure is not None
    assert "a defect of the agent" in ended.event.failure.message
