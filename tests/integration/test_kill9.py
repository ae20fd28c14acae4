"""Kill -9 of the agent, at every moment: the target runs on, and recovery leaves nothing behind."""

from __future__ import annotations

import pytest

from bench.bundle import COUNTER, memory
from bench.reports import Counter, wait_until
from bench.runc import Container
from tests.fakes.slow_store import Step
from tests.integration.aftermath import assert_gone, assert_unharmed, nothing_left
from tests.integration.agents import checkpointing, held, kill_together, recovered, restoring
from tests.integration.lab import Lab
from tests.integration.trees import processes

pytestmark = [pytest.mark.root, pytest.mark.criu]

DUMP_HOOKS = ["pre-stream", "pre-dump", "network-lock", "post-dump"]
RESTORE_HOOKS = ["pre-restore", "post-restore", "pre-resume", "post-resume"]


def started(lab: Lab) -> Container:
    """A container that counts and holds memory."""
    return lab.runc.start(lab.runc.build(COUNTER, memory(8)))


async def stopped_checkpoint(lab: Lab, container: Container) -> str:
    """A checkpoint of it; it has ended."""
    done = await lab.checkpoint(container, stop=True)
    wait_until(lambda: container.status() == "absent", "the container ending")
    container.report("counter").write(Counter.TICKS, 0)
    return done.checkpoint_id


@pytest.mark.parametrize("stop", [False, True], ids=["leave-running", "stop"])
@pytest.mark.parametrize("hook", DUMP_HOOKS)
async def test_the_agent_in_a_hook_of_a_dump(lab: Lab, hook: str, stop: bool) -> None:
    container = started(lab)
    criu, _ = lab.hook(hook)
    with nothing_left(lab):
        with checkpointing(lab, container, criu, stop=stop) as agent:
            wait_until(criu.reached, "the hook being reached")
            agent.kill()
            agent.wait()
            criu.release()
            # Nobody helps: CRIU and runc notice, and put everything back.
            wait_until(lambda: not processes(str(lab.state_dir)), "everybody ending")
            assert_unharmed(container)
        (found,) = await recovered(lab)
    assert (found.kind, found.thawed) == ("checkpoint", False)
    assert_unharmed(container)
    await lab.checkpoint(container)


@pytest.mark.parametrize("stop", [False, True], ids=["leave-running", "stop"])
@pytest.mark.parametrize("step", ["create", "write", "commit", "manifest"])
async def test_the_agent_while_storing(lab: Lab, step: Step, stop: bool) -> None:
    container = started(lab)
    words = (str(lab.runc.path), container.id, "stop" if stop else "leave-running")
    with nothing_left(lab):
        with held(lab, "checkpoint", step, *words) as agent:
            agent.kill()
            agent.wait()
            wait_until(lambda: not processes(str(lab.state_dir)), "everybody ending")
            assert_unharmed(container)
        await recovered(lab)
    assert_unharmed(container)
    await lab.checkpoint(container)


@pytest.mark.parametrize("hook", DUMP_HOOKS)
async def test_everything_that_works_on_a_dump(lab: Lab, hook: str) -> None:
    container = started(lab)
    criu, _ = lab.hook(hook)
    with nothing_left(lab), checkpointing(lab, container, criu, stop=True):
        wait_until(criu.reached, "the hook being reached")
        kill_together(each.pid for each in processes(str(lab.state_dir)))
        criu.release()
        await recovered(lab)
    assert_unharmed(container)
    await lab.checkpoint(container)


@pytest.mark.parametrize("hook", RESTORE_HOOKS)
async def test_the_agent_in_a_hook_of_a_restore(lab: Lab, hook: str) -> None:
    container = started(lab)
    checkpoint_id = await stopped_checkpoint(lab, container)
    criu, _ = lab.hook(hook)
    path = f"{lab.store.url}/{checkpoint_id}"
    with nothing_left(lab), restoring(lab, path, criu) as agent:
        wait_until(criu.reached, "the hook being reached")
        agent.kill()
        agent.wait()
        criu.release()
        await recovered(lab)
    await assert_all_or_nothing(lab, container, checkpoint_id)


async def assert_all_or_nothing(lab: Lab, container: Container, checkpoint_id: str) -> None:
    """Either the whole container came back, or nothing: then it can be restored."""
    if not lab.runc.containers():
        assert_gone(container)
        await lab.restore(checkpoint_id)
    assert lab.runc.containers() == [container.id]
    report = container.report("counter")
    report.wait_beyond(Counter.TICKS, report.read(Counter.TICKS) + 10)
    assert report.read(Counter.RESUMES) == 1


async def test_the_agent_while_a_restore_reads(lab: Lab) -> None:
    container = started(lab)
    checkpoint_id = await stopped_checkpoint(lab, container)
    with nothing_left(lab), held(lab, "restore", "read", checkpoint_id) as agent:
        agent.kill()
        agent.wait()
        await recovered(lab)
        assert_gone(container)
    await lab.restore(checkpoint_id)


@pytest.mark.parametrize("hook", RESTORE_HOOKS)
async def test_everything_that_works_on_a_restore(lab: Lab, hook: str) -> None:
    container = started(lab)
    checkpoint_id = await stopped_checkpoint(lab, container)
    criu, _ = lab.hook(hook)
    path = f"{lab.store.url}/{checkpoint_id}"
    with nothing_left(lab), restoring(lab, path, criu):
        wait_until(criu.reached, "the hook being reached")
        kill_together(each.pid for each in processes(str(lab.state_dir)))
        criu.release()
        await recovered(lab)
    await assert_all_or_nothing(lab, container, checkpoint_id)
