"""CRIU, runc or the launcher end half-way: the agent says so, and the target runs as before."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from agent.errors import DumpFailed, RestoreFailed, TargetLost
from bench.bundle import COUNTER, memory
from bench.reports import Counter, wait_until
from bench.runc import Container
from tests.fakes.hooked_criu import Action
from tests.fakes.slow_store import Gate, gated
from tests.integration.aftermath import assert_gone, assert_unharmed, nothing_left, stood_still
from tests.integration.agents import Tool, working
from tests.integration.lab import Lab
from tests.waiting import eventually_async

pytestmark = [pytest.mark.root, pytest.mark.criu]


def started(lab: Lab, mib: int = 8) -> Container:
    """A container that counts and holds memory."""
    return lab.runc.start(lab.runc.build(COUNTER, memory(mib)))


async def stopped_checkpoint(lab: Lab, container: Container) -> str:
    """A checkpoint of it; it has ended."""
    done = await lab.checkpoint(container, stop=True)
    wait_until(lambda: container.status() == "absent", "the container ending")
    container.report("counter").write(Counter.TICKS, 0)
    return done.checkpoint_id


@pytest.mark.parametrize("action", ["kill", "fail"])
@pytest.mark.parametrize("hook", ["pre-stream", "pre-dump", "network-lock", "post-dump"])
async def test_criu_ends_in_a_hook_of_a_dump(lab: Lab, hook: str, action: Action) -> None:
    container = started(lab)
    _, hooked = lab.hook(hook, action)
    with nothing_left(lab):
        with pytest.raises(DumpFailed) as failed:
            await hooked.checkpoint(container, stop=True)
        assert_unharmed(container)
    assert failed.value.reason
    await lab.checkpoint(container)


@pytest.mark.parametrize("stop", [False, True], ids=["leave-running", "stop"])
@pytest.mark.parametrize("tool", ["runc", "launcher", "criu"])
@pytest.mark.parametrize("hook", ["pre-dump", "post-dump"])
async def test_a_tool_is_killed_during_a_dump(lab: Lab, tool: Tool, hook: str, stop: bool) -> None:
    container = started(lab)
    criu, hooked = lab.hook(hook)
    with nothing_left(lab):
        work = asyncio.create_task(hooked.checkpoint(container, stop=stop))
        await eventually_async(criu.reached, "the hook being reached")
        os.kill(criu.pid() if tool == "criu" else working(lab, tool), signal.SIGKILL)
        criu.release()
        with pytest.raises(DumpFailed):
            await work
        assert_unharmed(container)
    await lab.checkpoint(container)


@pytest.mark.parametrize("tool", ["runc", "launcher", "criu"])
async def test_a_tool_is_killed_in_the_middle_of_the_pages(lab: Lab, tool: Tool) -> None:
    # More than the agent's buffers: while the store takes nothing, CRIU cannot go on either.
    container = started(lab, mib=64)
    gate = Gate()
    slow = lab.with_store(gated(lab.store, "write", gate))
    with nothing_left(lab):
        work = asyncio.create_task(slow.checkpoint(container, codec="none"))
        await eventually_async(stood_still(container, 0.5), "the container standing still")
        os.kill(working(lab, tool), signal.SIGKILL)
        gate.open()
        # A task whose memory CRIU was copying may go with it: then the error says so.
        with pytest.raises((DumpFailed, TargetLost)) as failed:
            await work
        if isinstance(failed.value, DumpFailed):
            assert_unharmed(container)
        else:
            assert container.status() == "stopped"


@pytest.mark.parametrize("hook", ["pre-restore", "post-restore", "pre-resume"])
async def test_criu_is_killed_in_a_hook_of_a_restore(lab: Lab, hook: str) -> None:
    container = started(lab)
    checkpoint_id = await stopped_checkpoint(lab, container)
    _, hooked = lab.hook(hook, "kill")
    with nothing_left(lab):
        with pytest.raises(RestoreFailed):
            await hooked.restore(checkpoint_id)
        assert_gone(container)
    await assert_restores(lab, container, checkpoint_id)


@pytest.mark.parametrize("tool", ["runc", "launcher", "criu"])
@pytest.mark.parametrize("hook", ["pre-restore", "post-restore"])
async def test_a_tool_is_killed_during_a_restore(lab: Lab, tool: Tool, hook: str) -> None:
    container = started(lab)
    checkpoint_id = await stopped_checkpoint(lab, container)
    criu, hooked = lab.hook(hook)
    with nothing_left(lab):
        work = asyncio.create_task(hooked.restore(checkpoint_id))
        await eventually_async(criu.reached, "the hook being reached")
        os.kill(criu.pid() if tool == "criu" else working(lab, tool), signal.SIGKILL)
        criu.release()
        with pytest.raises(RestoreFailed):
            await work
        assert_gone(container)
    await assert_restores(lab, container, checkpoint_id)


async def assert_restores(lab: Lab, container: Container, checkpoint_id: str) -> None:
    """Nothing is in the way of the next attempt, and it goes on from the image."""
    # Tasks that lost their CRIU at its last step ran for a moment.
    for slot in (Counter.TICKS, Counter.RESUMES):
        container.report("counter").write(slot, 0)
    await lab.restore(checkpoint_id)
    report = container.report("counter")
    report.wait_beyond(Counter.TICKS, 10)
    assert report.read(Counter.RESUMES) == 1
    assert container.status() == "running"
