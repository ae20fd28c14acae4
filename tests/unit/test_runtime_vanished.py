"""What becomes of a container whose `checkpoint-runc` ends, or goes on, without a word."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.config import Tools
from agent.host import process
from agent.host.wrapper.facts import Facts
from agent.host.wrapper.records import Records
from agent.operation.recovery import recover
from agent.runtime import attempts
from tests.fakes.scripted_worker import ScriptedWorker
from tests.runtime_nodes import ACTION, Node, serving, soon
from tests.scripted_executors import executor
from tests.waiting import descriptors, opened_since


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    async with executor(tmp_path / "journal", ScriptedWorker()) as acting:
        made = Node(tmp_path, acting)
        async with serving(made):
            yield made


@pytest.mark.root
async def test_a_client_that_vanishes(node: Node) -> None:
    path = node.checkpoint(volume=True)
    client = await node.ask(path)
    await client.until_run()
    # Perhaps it was not killed, and what has that id by now is a cold start.
    (node.directory / "id-app").mkdir()
    client.leave()
    await soon(lambda: node.record()["state"] == "failed")
    await soon(lambda: os.listdir(node.volume) == ["init"])

    def no_tools() -> Tools:
        raise AssertionError

    # Its runc may live a little longer; the recovery waits for that, and keeps off as well.
    assert len(node.operations()) == 1
    state = node.directory / "state"
    async with asyncio.timeout(20):
        while node.operations():
            await recover(tools=no_tools, state_dir=state)
    assert (node.directory / "id-app").exists()
    # Nothing was decided for the pod: the kubelet tries again.
    again = await node.ask(path)
    await again.until_run()
    again.leave()


@pytest.mark.root
async def test_a_client_that_vanishes_before_it_is_told(node: Node) -> None:
    """Of a failure, after its runc has made processes: they may write to the volumes."""
    client = await node.ask(node.checkpoint(volume=True))
    await client.until_run()
    child = await asyncio.create_subprocess_exec("sleep", "1000")
    try:
        started = process.stat(child.pid)
        assert started is not None
        [operation] = node.operations()
        (operation / "root").write_text(f"{child.pid} {started.started}")
        await client.say({"ended": {"status": 1, "pid": 0, "reason": "no GPU"}})
        client.leave()
        assert await asyncio.wait_for(child.wait(), 20) == -signal.SIGKILL
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    await soon(lambda: os.listdir(node.volume) == ["init"])


async def test_a_client_that_decides_by_itself(node: Node) -> None:
    """As one of another version may: it starts its container cold, and says so in a file."""
    path = node.checkpoint()
    client = await node.ask(path, "app", ACTION)
    await client.until_run()
    records = Records(str(node.directory / "restores"), Facts(str(node.directory / "bundle-app")))
    records.note_cold("id-app", "the agent is of another version")
    client.leave()
    # Half a pod from a checkpoint and half a new one would be neither.
    side = await node.ask(path, "side", ACTION)
    word, content = await side.hear()
    reason = "the pod was started cold: the agent is of another version"
    assert (word, content["reason"]) == ("cold", reason)
    side.leave()
    assert node.record()["state"] == "cold"
    # A restart, which is no restore.
    again = await node.ask(path, "app", ACTION)
    assert (await again.hear())[0] == "cold"
    again.leave()


@pytest.mark.root
@pytest.mark.parametrize("leaves", [True, False])
async def test_layers_beside_the_containers_own(
    node: Node, leaves: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They go; but not below the hands of a client that still puts them back."""
    monkeypatch.setattr(attempts, "_LEAVING_SECONDS", 20.0 if leaves else 0.2)
    before = descriptors()
    client = await node.ask(node.checkpoint(layer=True))
    order = await client.until_run()
    # As agent/host/wrapper/swap.py does.
    cold = node.upper.with_name("fs.cold")
    os.rename(node.upper, cold)
    os.rename(order["layer"], node.upper)
    await client.say({"ended": {"status": 1, "pid": 0}})
    assert (await client.hear())[0] == "cold"
    if leaves:
        client.leave()
        await soon(lambda: node.operations() == [])
    else:
        assert await client.hear() == ("gone", {})
        client.leave()
    await soon(lambda: not opened_since(before))
    assert cold.exists() is not leaves
    assert os.listdir(node.upper) == ["from-checkpoint"]
