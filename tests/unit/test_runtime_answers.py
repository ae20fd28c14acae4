"""What a `checkpoint-runc` is told, step by step, and what is left when one of both gives up."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.host import aside
from agent.messages.model import State
from agent.runtime.begun import Begun
from agent.runtime.sandboxes import Sandboxes
from tests.fakes.scripted_worker import ScriptedWorker
from tests.runtime_nodes import ACTION, Node, reporting, serving, soon
from tests.scripted_executors import executor, sent
from tests.waiting import descriptors, opened_since


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    async with executor(tmp_path / "journal", ScriptedWorker()) as acting:
        made = Node(tmp_path, acting)
        async with serving(made):
            yield made


async def test_one_that_comes_back(node: Node) -> None:
    path, before = node.checkpoint(), descriptors()
    client = await node.ask(path)
    order = await client.until_run()
    assert "criu" in os.listdir(order["launcher"])
    assert order["layer"] is None
    assert order["unfinished"] is False
    await client.say({"ended": {"status": 0, "pid": os.getpid(), "reason": ""}})
    assert await client.hear() == ("restored", {})
    client.leave()
    await soon(lambda: node.operations() == [])
    assert (node.record()["state"], node.record()["pid"]) == ("restored", os.getpid())
    await soon(lambda: not opened_since(before))
    assert list((node.directory / "state" / "locks").iterdir()) == []


async def test_what_the_other_end_could_not_do(node: Node) -> None:
    path = node.checkpoint()
    client = await node.ask(path)
    await client.until_run()
    await client.say({"ended": {"status": 1, "pid": 0, "reason": "its writable layer: busy"}})
    word, content = await client.hear()
    assert word == "cold"
    assert "its writable layer: busy" in content["reason"]
    client.leave()
    await soon(lambda: node.operations() == [])
    # It is the pod's decision, and whoever waits for its action knows.
    side = await node.ask(path, "side")
    word, content = await side.hear()
    assert (word, "its writable layer: busy" in content["reason"]) == ("cold", True)
    side.leave()


@pytest.mark.root
async def test_volumes_come_back_when_the_processes_are_gone(node: Node) -> None:
    client = await node.ask(node.checkpoint(volume=True))
    await client.until_run()
    assert sorted(os.listdir(node.volume)) == [aside.NAME, "from-checkpoint"]
    await client.say({"ended": {"status": 1, "pid": 0}})
    assert (await client.hear())[0] == "cold"
    # The other end has still to end what may write there; it then does the same itself.
    assert sorted(os.listdir(node.volume)) == [aside.NAME, "from-checkpoint"]
    client.leave()
    await soon(lambda: node.operations() == [])
    assert os.listdir(node.volume) == ["init"]


@pytest.mark.root
async def test_what_an_agent_that_dies_has_put_back_stays(node: Node) -> None:
    client = await node.ask(node.checkpoint(volume=True))
    await client.until_run()
    assert node.record()["volumes"] == ["empty-dir/work"]
    # The mark of a `checkpoint-runc` that was content.
    (node.directory / "id-app").mkdir()
    (node.directory / "id-app" / "checkpoint-restored").touch()
    client.leave()
    again = Sandboxes(node.directory / "restores", "cold", Begun(node.directory / "begun"))
    again.load()
    [sandbox] = again.known()
    assert sandbox.has_restored
    assert sandbox.decision.volumes == {"empty-dir/work"}


async def test_one_that_cannot_come_back_when_nothing_of_the_checkpoint_runs(node: Node) -> None:
    """The first one has ended for lack of it, perhaps, and both would wait for ever."""
    path = node.checkpoint()

    async def fails(container: str) -> tuple[str, str]:
        client = await node.ask(path, container)
        await client.until_run()
        await client.say({"ended": {"status": 1, "pid": 0, "reason": "an address that is gone"}})
        word, content = await client.hear()
        client.leave()
        await soon(lambda: node.operations() == [])
        return word, content["reason"]

    await (await node.ask(path)).come_back()
    for _ in range(2):
        word, reason = await fails("side")
        assert (word, "an address that is gone" in reason) == ("failed", True)
    restarted = await node.ask(path)
    assert (await restarted.hear())[0] == "cold"
    restarted.leave()
    word, reason = await fails("side")
    assert (word, "an address that is gone" in reason) == ("cold", True)
    assert (node.record()["state"], node.record("side")["state"]) == ("restored", "cold")


async def test_what_was_decided_without_an_agent_is_told(tmp_path: Path) -> None:
    """By a `checkpoint-runc` that found none, for the pod's first container."""
    async with executor(tmp_path / "journal", ScriptedWorker()) as acting:
        node = Node(tmp_path, acting)
        (tmp_path / "restores" / "s1").mkdir(parents=True)
        record = {"state": "cold", "container_id": "id-app", "reason": "no agent listens",
                  "at": time.time()}  # fmt: skip
        (tmp_path / "restores" / "s1" / "app.json").write_text(json.dumps(record))
        async with serving(node):
            for container in ("side", "another"):
                client = await node.ask("nobody", container, ACTION)
                word, content = await client.hear()
                reason = "the pod was started cold: no agent listens"
                assert (word, content["reason"]) == ("cold", reason)
                client.leave()
        [event] = await sent(acting)
        assert (event.action_id, event.state) == (ACTION, State.ERROR)


async def test_a_defect_is_a_decision_too(tmp_path: Path) -> None:
    async with executor(tmp_path / "journal", ScriptedWorker()) as acting:
        node = Node(tmp_path, acting)
        # No check of settings lets that through.
        storage = node.settings.storage.model_copy(update={"store": 7})
        node.settings = node.settings.model_copy(update={"storage": storage})
        node.server = node.new_server()
        async with serving(node):
            client = await node.ask("nightly")
            word, content = await client.hear()
            assert word == "cold"
            assert "TypeError" in content["reason"]
            client.leave()
            side = await node.ask("nightly", "side")
            assert (await side.hear())[0] == "cold"
            side.leave()


async def test_records_that_cannot_be_written(node: Node) -> None:
    path = node.checkpoint()
    (node.directory / "restores" / "s1").write_text("in the way")
    client = await node.ask(path)
    await client.until_run()
    await client.say({"ended": {"status": 0, "pid": os.getpid()}})
    assert await client.hear() == ("restored", {})
    client.leave()
    await soon(lambda: node.operations() == [])


async def test_one_that_is_late(tmp_path: Path) -> None:
    async with executor(tmp_path / "journal", ScriptedWorker()) as acting:
        node = Node(tmp_path, acting, limit_seconds=0.5, fallback="fail")
        async with serving(node):
            client = await node.ask(node.checkpoint())
            await client.until_run()
            word, content = await client.hear()
            assert (word, "not done within 0.5 s" in content["reason"]) == ("failed", True)
            client.leave()
            await soon(lambda: node.operations() == [])


async def test_an_agent_that_stops_in_the_middle(tmp_path: Path) -> None:
    async with executor(tmp_path / "journal", ScriptedWorker()) as acting:
        node = Node(tmp_path, acting)
        async with serving(node):
            client = await node.ask(node.checkpoint())
            await client.until_run()
            stopping = asyncio.create_task(node.server.stop(0.0))
            assert (await client.hear())[0] == "cold"
            client.leave()
            await stopping
        assert node.operations() == []


async def test_a_defect_in_the_middle(tmp_path: Path) -> None:
    """Nobody is told a verdict then; but whoever waits for the action is told of it."""
    async with reporting(tmp_path) as node:
        # A name that is no text, of which nothing can be written down.
        client = await node.ask(node.checkpoint(), "app", ACTION, root="/\udcff")
        assert await client.hear() == ("gone", {})
        client.leave()
        ended = await asyncio.wait_for(node.executor.wait(ACTION), 20)
        assert ended.event.failure is not None
        assert "a defect of the agent" in ended.event.failure.message
