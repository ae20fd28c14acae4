"""A `checkpoint-runc` that is killed while the agent works for it, and does not read from it.

As containerd does when a kubelet that is restarted gives up its request.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.host import process
from agent.messages.model import State
from tests.fakes.scripted_worker import ScriptedWorker
from tests.runtime_nodes import ACTION, Node, reporting, serving, soon
from tests.scripted_executors import executor, states


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    async with reporting(tmp_path) as made:
        yield made


@contextmanager
def unreadable(path: Path) -> Iterator[None]:
    """Whoever opens the file waits until the end of the block."""
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    try:
        yield
    finally:
        both = os.open(path, os.O_RDWR)
        path.unlink()
        time.sleep(0.05)
        os.close(both)


@contextmanager
def endless_tar(directory: Path) -> Iterator[None]:
    """Who unpacks a volume in the block does not come to its end."""
    program = directory / "endless" / "tar"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\nexec sleep 1000\n")
    program.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
        yield


async def comes_back(node: Node, path: str, container: str = "app") -> None:
    """The kubelet's next try, which has another id."""
    again = await node.ask(path, container, ACTION, id=f"again-{container}")
    await again.until_run()
    await again.say({"ended": {"status": 0, "pid": os.getpid()}})
    assert await again.hear() == ("restored", {})
    assert node.record(container)["state"] == "restored"
    again.leave()


async def test_while_what_it_has_restored_is_made_whole(node: Node) -> None:
    """Its engine removes the container: that is not back, and what follows is no restart."""
    path = node.checkpoint()
    client = await node.ask(path, action=ACTION)
    await client.until_run()
    child = await asyncio.create_subprocess_exec("sleep", "1000")
    try:
        started = process.stat(child.pid)
        assert started is not None
        [operation] = node.operations()
        (operation / "root").write_text(f"{child.pid} {started.started}")
        # Read for its devices.
        with unreadable(node.directory / "bundle-app" / "config.json"):
            await client.say({"ended": {"status": 0, "pid": child.pid}})
            client.leave()
            await soon(lambda: node.record()["state"] == "failed")
        assert await asyncio.wait_for(child.wait(), 20) == -signal.SIGKILL
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    await comes_back(node, path, "side")
    assert await states(node.executor, ACTION) == [State.INITIALIZED, State.PROCESSING]
    await comes_back(node, path)
    assert (await node.executor.wait(ACTION)).state is State.READY


async def test_before_it_hears_that_it_is_restored(node: Node) -> None:
    path = node.checkpoint()
    client = await node.ask(path, action=ACTION)
    await client.until_run()
    # What is decided is written down just before it is told.
    record = node.directory / "restores" / "s1" / "._pod.json.new"
    os.mkfifo(record)
    await client.say({"ended": {"status": 0, "pid": os.getpid()}})
    await asyncio.sleep(0.5)
    assert node.record()["state"] == "restoring"
    client.leave()
    reader = os.open(record, os.O_RDONLY | os.O_NONBLOCK)
    await soon(lambda: node.record()["state"] == "failed")
    os.close(reader)
    await comes_back(node, path)


@pytest.mark.root
async def test_while_a_volume_is_unpacked(node: Node) -> None:
    path = node.checkpoint(volume=True)
    with endless_tar(node.directory):
        client = await node.ask(path, action=ACTION)
        assert (await client.hear())[0] == "volumes"
        client.leave()
        await soon(lambda: node.record()["state"] == "failed")
        assert os.listdir(node.volume) == ["init"]
    await comes_back(node, path)


@pytest.mark.root
async def test_and_its_time_is_over(tmp_path: Path) -> None:
    """Nothing is decided for a pod when there is nobody to be told."""
    for attempt in range(5):
        # A machine that stands still just then leaves too late, and has to do it again.
        if await _has_left_in_time(tmp_path / str(attempt)):
            return
    pytest.fail("never in time")


async def _has_left_in_time(directory: Path) -> bool:
    """Whether it left before its time was over, just so; nothing was decided then."""
    os.mkdir(directory)
    limit = 2.0
    async with executor(directory / "journal", ScriptedWorker()) as acting:
        node = Node(directory, acting, limit_seconds=limit)
        async with serving(node):
            path = node.checkpoint(volume=True)
            with endless_tar(directory):
                over = time.monotonic() + limit
                client = await node.ask(path)
                if (await client.hear())[0] != "volumes":
                    return False
                await asyncio.sleep(over - 0.05 - time.monotonic())
                client.leave()
                in_time = time.monotonic() < over
                await soon(lambda: node.record()["state"] != "restoring")
            assert not in_time or node.record()["state"] == "failed"
            return in_time


async def test_while_it_waits_for_the_one_before(node: Node) -> None:
    """The pod's next one is not kept waiting by one that nobody waits for."""
    path = node.checkpoint()
    first = await node.ask(path)
    await first.until_run()
    second = await node.ask(path, "side")
    await asyncio.sleep(0.1)
    second.leave()
    await asyncio.sleep(0.5)
    await first.say({"ended": {"status": 0, "pid": os.getpid()}})
    assert await first.hear() == ("restored", {})
    first.leave()
    await asyncio.sleep(0.5)
    assert not (node.directory / "restores" / "s1" / "side.json").exists()
    await comes_back(node, path, "side")
