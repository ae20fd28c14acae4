"""Volumes of which both ends of an attempt were killed, when the next start is a cold one."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.host import aside
from tests.fakes.scripted_worker import ScriptedWorker
from tests.runtime_nodes import Node, serving, soon
from tests.scripted_executors import executor


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    async with executor(tmp_path / "journal", ScriptedWorker()) as acting:
        made = Node(tmp_path, acting)
        aside.put(made.volume)
        (made.volume / "half").touch()
        async with serving(made):
            yield made


async def test_where_there_is_no_checkpoint(node: Node) -> None:
    client = await node.ask("nobody")
    assert (await client.hear())[0] == "cold"
    assert os.listdir(node.volume) == ["init"]


async def test_where_the_checkpoint_has_no_such_container(node: Node) -> None:
    """An init container, which is to find what the one before it has left."""
    client = await node.ask(node.checkpoint(), "init")
    assert (await client.hear())[0] == "cold"
    assert os.listdir(node.volume) == ["init"]


async def test_where_another_one_has_been_the_reason(node: Node) -> None:
    first = await node.ask("nobody")
    assert (await first.hear())[0] == "cold"
    # That one had not this volume.
    aside.put(node.volume)
    second = await node.ask("nobody", "side")
    assert (await second.hear())[0] == "cold"
    assert os.listdir(node.volume) == ["init"]
    # A restart finds it as it is.
    aside.put(node.volume)
    again = await node.ask("nobody")
    assert (await again.hear())[0] == "cold"
    assert os.listdir(node.volume) == [aside.NAME]


@pytest.mark.root
async def test_what_has_come_back_stays(node: Node) -> None:
    """Also where an agent was killed before it had removed what was aside."""
    path = node.checkpoint(volume=True)
    await (await node.ask(path)).come_back()
    await soon(lambda: node.operations() == [])
    (node.volume / aside.NAME).mkdir()
    client = await node.ask(path, "more")
    assert (await client.hear())[0] == "cold"
    assert sorted(os.listdir(node.volume)) == [aside.NAME, "from-checkpoint"]


async def test_where_that_is_impossible(node: Node) -> None:
    """It does not start on what is neither; the kubelet tries again."""
    aside.recover(node.volume)
    (node.volume / aside.PARTIAL / "init").mkdir(parents=True)
    client = await node.ask("nobody")
    word, content = await client.hear()
    assert (word, str(node.volume) in content["reason"]) == ("failed", True)
    assert node.record()["state"] == "failed"
    (node.volume / aside.PARTIAL / "init").rmdir()
    again = await node.ask("nobody")
    assert (await again.hear())[0] == "cold"
    assert os.listdir(node.volume) == ["init"]
