"""Process trees without a container, when something fails: they run on, or nothing of them does."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import psutil
import pytest

from agent.errors import DumpFailed, RestoreFailed, StoreFailed, TargetBusy
from bench.bundle import COUNTER, memory
from bench.reports import Counter, Memory, wait_until
from tests.fakes.hooked_criu import Action
from tests.fakes.slow_store import Step, WrappedStore
from tests.integration.aftermath import nothing_left
from tests.integration.agents import kill_together, recovered, restoring
from tests.integration.lab import Lab
from tests.integration.trees import Tree, processes, started_tree
from tests.waiting import eventually_async

pytestmark = [pytest.mark.root, pytest.mark.criu]


@contextmanager
def counting(lab: Lab) -> Iterator[Tree]:
    """A process that has counted for a while."""
    with started_tree(lab.directory, COUNTER) as tree:
        tree.report.wait_beyond(Counter.TICKS, 20)
        yield tree


def assert_unharmed(tree: Tree) -> None:
    """It counts, and has never been anything but itself."""
    tree.report.wait_beyond(Counter.TICKS, tree.report.read(Counter.TICKS) + 10)
    assert tree.report.read(Counter.RESUMES) == 0
    assert psutil.Process(tree.pid).status() != psutil.STATUS_STOPPED


async def stopped_checkpoint(lab: Lab, tree: Tree) -> str:
    """A checkpoint of it; it has ended."""
    done = await lab.checkpoint(tree.pid, stop=True)
    tree.reap()
    tree.report.write(Counter.TICKS, 0)
    return done.checkpoint_id


async def test_a_state_directory_may_have_any_length(lab: Lab) -> None:
    # Deeper than the 108 bytes that the path of a unix socket may have.
    deep = replace(lab, directory=lab.directory / ("d" * 100) / ("e" * 100))
    with started_tree(lab.directory, memory(16)) as tree:
        done = await deep.checkpoint(tree.pid, stop=True)
        tree.reap()
        await deep.restore(done.checkpoint_id)
        tree.report.write(Memory.CHECKSUM, 0)
        tree.report.ask(Memory.VERIFY, Memory.VERIFIED)
        assert tree.report.read(Memory.CHECKSUM) != 0
        assert tree.report.read(Memory.FAILURES) == 0


async def test_two_checkpoints_of_one_process(lab: Lab) -> None:
    with counting(lab) as tree:
        criu, hooked = lab.hook("post-dump")
        first = asyncio.create_task(hooked.checkpoint(tree.pid))
        await eventually_async(criu.reached, "the first one dumping")
        operations = lab.operations()
        with pytest.raises(TargetBusy):
            await lab.checkpoint(tree.pid)
        assert lab.operations() == operations
        criu.release()
        await first
        assert_unharmed(tree)


@pytest.mark.parametrize("action", ["kill", "fail"])
@pytest.mark.parametrize("hook", ["pre-stream", "pre-dump", "post-dump"])
async def test_criu_ends_during_its_dump(lab: Lab, hook: str, action: Action) -> None:
    with counting(lab) as tree:
        _, hooked = lab.hook(hook, action)
        with nothing_left(lab), pytest.raises(DumpFailed) as failed:
            await hooked.checkpoint(tree.pid, stop=True)
        assert failed.value.reason
        assert_unharmed(tree)


# CRIU takes no notice of a pre-resume script that fails.
@pytest.mark.parametrize(
    ("hook", "action"),
    [
        ("pre-restore", "kill"),
        ("pre-restore", "fail"),
        ("post-restore", "kill"),
        ("post-restore", "fail"),
        ("pre-resume", "kill"),
    ],
)
async def test_criu_ends_during_its_restore(lab: Lab, hook: str, action: Action) -> None:
    with counting(lab) as tree:
        checkpoint_id = await stopped_checkpoint(lab, tree)
        _, hooked = lab.hook(hook, action)
        with nothing_left(lab), pytest.raises(RestoreFailed):
            await hooked.restore(checkpoint_id)
        assert processes(str(tree.report.path)) == []
        # What lost its CRIU at the last step may have run for a moment.
        for slot in (Counter.TICKS, Counter.RESUMES):
            tree.report.write(slot, 0)
        await eventually_async(lambda: not psutil.pid_exists(tree.pid), "init reaping it")
        await lab.restore(checkpoint_id)
        wait_until(lambda: tree.report.read(Counter.RESUMES) == 1, "the counter going on")


@pytest.mark.parametrize("stop", [False, True], ids=["leave-running", "stop"])
@pytest.mark.parametrize("step", ["commit", "manifest"])
async def test_a_store_that_fails(lab: Lab, step: Step, stop: bool) -> None:
    def fail(reached: Step) -> None:
        if reached == step:
            raise StoreFailed(step, lab.store.url, "it has had enough")

    failing = lab.with_store(WrappedStore(lab.store, pass_=fail))
    with counting(lab) as tree:
        with nothing_left(lab), pytest.raises(StoreFailed, match="had enough"):
            await failing.checkpoint(tree.pid, stop=stop)
        assert_unharmed(tree)


@pytest.mark.parametrize("hook", ["pre-dump", "post-dump"])
async def test_a_cancelled_checkpoint_leaves_it_as_it_was(lab: Lab, hook: str) -> None:
    criu, hooked = lab.hook(hook)
    with counting(lab) as tree, nothing_left(lab):
        work = asyncio.create_task(hooked.checkpoint(tree.pid, stop=True))
        await eventually_async(criu.reached, "the hook being reached")
        work.cancel()
        criu.release()
        with pytest.raises(asyncio.CancelledError):
            await work
        assert_unharmed(tree)


async def test_everything_that_works_on_a_restore_is_killed(lab: Lab) -> None:
    with counting(lab) as tree:
        checkpoint_id = await stopped_checkpoint(lab, tree)
        criu, _ = lab.hook("pre-resume")
        path = f"{lab.store.url}/{checkpoint_id}"
        with nothing_left(lab), restoring(lab, path, criu):
            await eventually_async(criu.reached, "the hook being reached")
            kill_together(each.pid for each in processes(str(lab.state_dir)))
            criu.release()
            (found,) = await recovered(lab)
        assert (found.kind, found.removed) == ("restore", True)
        assert processes(str(tree.report.path)) == []


async def test_the_agent_is_killed_when_a_restore_is_complete(lab: Lab) -> None:
    with counting(lab) as tree:
        checkpoint_id = await stopped_checkpoint(lab, tree)
        criu, _ = lab.hook("post-resume")
        path = f"{lab.store.url}/{checkpoint_id}"
        with nothing_left(lab), restoring(lab, path, criu) as agent:
            await eventually_async(criu.reached, "the hook being reached")
            agent.kill()
            agent.wait()
            criu.release()
            (found,) = await recovered(lab)
        assert (found.kind, found.removed) == ("restore", False)
        tree.report.wait_beyond(Counter.TICKS, 20)
