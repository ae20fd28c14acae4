"""Whoever interrupts a checkpoint or restore, at whatever moment, finds everything as before."""

from __future__ import annotations

import asyncio
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from agent.config import find_tools
from agent.host import run
from agent.operation import attempt, control
from agent.operation.recovery import recover_all
from bench.bundle import COUNTER, memory
from bench.reports import wait_until
from bench.runc import Container
from tests.cli_process import CLI, environment, only_document
from tests.fakes.slow_store import Gate, Step, gated
from tests.integration.aftermath import assert_gone, assert_unharmed, nothing_left, stood_still
from tests.integration.lab import Lab
from tests.waiting import eventually_async

pytestmark = [pytest.mark.root, pytest.mark.criu]


@dataclass(frozen=True, slots=True)
class Moment:
    """A lab in which an operation stops at some moment until it is let go."""

    lab: Lab
    reached: Callable[[], bool]
    let_go: Callable[[], None]


def at_hook(lab: Lab, hook: str) -> Moment:
    """CRIU stops in one of its hooks."""
    criu, hooked = lab.hook(hook)
    return Moment(hooked, criu.reached, criu.release)


def at_step(lab: Lab, step: Step) -> Moment:
    """The store stops at one of its steps."""
    gate = Gate()
    return Moment(lab.with_store(gated(lab.store, step, gate)), gate.reached.is_set, gate.open)


def started(lab: Lab, mib: int = 8) -> Container:
    """A container that counts and holds memory."""
    return lab.runc.start(lab.runc.build(COUNTER, memory(mib)))


async def cancelled_at(moment: Moment, work: asyncio.Task[object]) -> None:
    """Cancel ``work`` when the moment has come; it ends as cancelled."""
    await eventually_async(lambda: moment.reached() or work.done(), "the moment coming")
    assert not work.done(), work
    work.cancel()
    # The cancellation arrives, and whatever does not wait for CRIU or the store has its way.
    for _ in range(20):
        await asyncio.sleep(0.005)
    moment.let_go()
    with pytest.raises(asyncio.CancelledError):
        await work


@pytest.mark.parametrize("stop", [False, True], ids=["leave-running", "stop"])
@pytest.mark.parametrize("hook", ["pre-stream", "pre-dump", "network-lock", "post-dump"])
async def test_a_checkpoint_cancelled_in_a_hook(lab: Lab, hook: str, stop: bool) -> None:
    container = started(lab)
    moment = at_hook(lab, hook)
    with nothing_left(lab):
        work = asyncio.create_task(moment.lab.checkpoint(container, stop=stop))
        await cancelled_at(moment, work)
        assert_unharmed(container)
    await lab.checkpoint(container)


@pytest.mark.parametrize("stop", [False, True], ids=["leave-running", "stop"])
@pytest.mark.parametrize("step", ["create", "commit", "manifest"])
async def test_a_checkpoint_cancelled_while_storing(lab: Lab, step: Step, stop: bool) -> None:
    container = started(lab)
    moment = at_step(lab, step)
    with nothing_left(lab):
        work = asyncio.create_task(moment.lab.checkpoint(container, stop=stop))
        await cancelled_at(moment, work)
        assert_unharmed(container)
    await lab.checkpoint(container)


async def test_a_checkpoint_cancelled_in_the_middle_of_the_pages(lab: Lab) -> None:
    # More than the agent's buffers: while the store takes nothing, CRIU cannot go on either.
    container = started(lab, mib=64)
    moment = at_step(lab, "write")
    with nothing_left(lab):
        work = asyncio.create_task(moment.lab.checkpoint(container, codec="none"))
        await eventually_async(stood_still(container, 0.5), "the container standing still")
        await cancelled_at(moment, work)
        assert_unharmed(container)


@pytest.mark.parametrize("hook", ["pre-restore", "post-restore", "pre-resume"])
async def test_a_restore_cancelled_in_a_hook(lab: Lab, hook: str) -> None:
    container = started(lab)
    done = await lab.checkpoint(container, stop=True)
    wait_until(lambda: container.status() == "absent", "the container ending")
    moment = at_hook(lab, hook)
    with nothing_left(lab):
        await cancelled_at(moment, asyncio.create_task(moment.lab.restore(done.checkpoint_id)))
        assert_gone(container)
    await lab.restore(done.checkpoint_id)


async def test_a_restore_cancelled_while_reading(lab: Lab) -> None:
    container = started(lab)
    done = await lab.checkpoint(container, stop=True)
    wait_until(lambda: container.status() == "absent", "the container ending")
    moment = at_step(lab, "read")
    with nothing_left(lab):
        await cancelled_at(moment, asyncio.create_task(moment.lab.restore(done.checkpoint_id)))
        assert_gone(container)
    await lab.restore(done.checkpoint_id)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("hook", ["pre-dump", "post-dump"])
def test_a_signal_ends_the_command_in_order(lab: Lab, hook: str, number: signal.Signals) -> None:
    container = started(lab)
    criu, _ = lab.hook(hook)
    places = ["--store", lab.store.url, "--state-dir", str(lab.state_dir)]
    arguments = ["checkpoint", container.id, "--runc-root", str(lab.runc.path), "--stop", *places]
    with nothing_left(lab):
        with subprocess.Popen(
            [*CLI, *arguments, "-o", "json"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment({"CHECKPOINT_AGENT_CRIU": str(criu.program)}),
        ) as command:
            try:
                wait_until(criu.reached, "the hook being reached")
                command.send_signal(number)
            finally:
                # Also when it was not reached: the block ends when the command does, and that
                # waits for CRIU.
                criu.release()
            out, _ = command.communicate()
        assert_unharmed(container)
    assert command.returncode == 128 + number
    assert only_document(out)["error"]["code"] == "interrupted"


async def test_a_criu_that_does_not_end_is_told_of_and_stays_in_the_journal(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (attempt, control):
        monkeypatch.setattr(module, "ROLLBACK_TIMEOUT", 0.3)
    monkeypatch.setattr(run, "TERM_GRACE", 0.2)
    container = started(lab)
    criu, held = lab.hook("pre-dump")
    work = asyncio.create_task(held.checkpoint(container))
    await eventually_async(criu.reached, "the dump")
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work

    async def found() -> str | None:
        [left] = await recover_all(tools=find_tools, state_dir=lab.state_dir, patience=0.05)
        return left.problem

    assert "runc still works on it" in (await found() or "")
    criu.release()
    async with asyncio.timeout(20):
        while await found() is not None:
            await asyncio.sleep(0.05)
    assert lab.operations() == []
    assert_unharmed(container)
