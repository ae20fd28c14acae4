"""Process trees without a container: checkpointed by pid, restored with the pids they had."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import psutil
import pytest

from agent.errors import (
    AlreadyExists,
    InvalidArgument,
    MissingTool,
    TargetNotCheckpointable,
    TargetNotFound,
)
from agent.host.process import is_kernel_thread, is_taken, namespace, stat
from bench.bundle import COUNTER
from bench.programs import program
from bench.reports import Counter, Report, wait_until
from tests.integration.aftermath import assert_unharmed, nothing_left
from tests.integration.lab import Lab
from tests.integration.trees import Tree, kill_all, processes, started_tree

pytestmark = [pytest.mark.root, pytest.mark.criu]

# More than any kernel allows, which is 2**22.
NO_PID = (1 << 22) + 1


@contextmanager
def parent_and_child(lab: Lab) -> Iterator[tuple[Tree, Report]]:
    """Two counters, one the other's child, and the child's report."""
    counter = program(COUNTER.name)
    parent, child = (Report(lab.directory / name) for name in ("parent", "child"))
    process = subprocess.Popen(
        ["sh", "-c", f"{counter} {child.path} & exec {counter} {parent.path}"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=lab.directory,
        start_new_session=True,
    )
    try:
        parent.wait_ready()
        child.wait_ready()
        yield Tree(process, parent), child
    finally:
        for report in (parent, child):
            kill_all(str(report.path))
        process.wait(timeout=30)


def forgotten(report: Report) -> int:
    """The last count of a counter that has ended; only an image knows it from now on."""
    ticks = report.read(Counter.TICKS)
    report.write(Counter.TICKS, 0)
    return ticks


def assert_goes_on(report: Report) -> None:
    """It counts, and has never been anything but itself."""
    report.wait_beyond(Counter.TICKS, report.read(Counter.TICKS) + 10)
    assert report.read(Counter.RESUMES) == 0


def assert_resumed(report: Report, earliest: int, latest: int, *, times: int = 1) -> None:
    """It goes on counting from a number of the image, which was taken between these two."""
    wait_until(lambda: report.read(Counter.RESUMES) == times, "the counter going on")
    assert earliest <= report.read(Counter.RESUMED_FROM) <= latest
    report.wait_beyond(Counter.TICKS, report.read(Counter.RESUMED_FROM) + 20)


def wait_free(pid: int) -> None:
    """Wait until a restored process could have this pid."""
    wait_until(lambda: not is_taken(pid), f"pid {pid} being free")


async def test_leaves_it_running_and_brings_it_back_after_a_kill(lab: Lab) -> None:
    with started_tree(lab.directory, COUNTER) as tree:
        before = tree.report.read(Counter.TICKS)
        done = await lab.checkpoint(tree.pid)
        after = tree.report.read(Counter.TICKS)
        assert_goes_on(tree.report)
        tree.kill()
        wait_free(tree.pid)
        forgotten(tree.report)

        restored = await lab.restore(done.checkpoint_id)

        assert_resumed(tree.report, before, after)
        assert [each.pid for each in processes(str(tree.report.path))] == [tree.pid]
        assert (done.streamed, done.stopped) == (True, False)
        assert (restored.kind, restored.target) == ("process", str(tree.pid))
        assert (restored.pid, restored.streamed) == (tree.pid, True)
    assert lab.operations() == []


async def test_a_machine_without_runc(lab: Lab) -> None:
    """Processes need none; containers do, and are told before they are touched."""
    without = replace(lab, tools=replace(lab.tools, runc=None))
    with started_tree(lab.directory, COUNTER) as tree:
        done = await without.checkpoint(tree.pid, stop=True)
        tree.reap()
        forgotten(tree.report)
        await without.restore(done.checkpoint_id)
        wait_until(lambda: tree.report.read(Counter.RESUMES) == 1, "the counter going on")
    container = lab.runc.start(lab.runc.build(COUNTER))
    with nothing_left(lab), pytest.raises(MissingTool, match="runc"):
        await without.checkpoint(container)
    assert_unharmed(container)
    done = await lab.checkpoint(container)
    container.delete()
    with nothing_left(lab), pytest.raises(MissingTool, match="runc"):
        await without.restore(done.checkpoint_id)
    await lab.restore(done.checkpoint_id)


async def test_stops_a_parent_and_its_child_and_brings_both_back(lab: Lab) -> None:
    with parent_and_child(lab) as (tree, child):
        reports = (tree.report, child)
        before = [report.read(Counter.TICKS) for report in reports]
        (child_pid,) = [each.pid for each in processes(str(child.path))]

        done = await lab.checkpoint(tree.pid, stop=True)

        tree.reap()
        wait_free(tree.pid)
        wait_free(child_pid)
        after = [forgotten(report) for report in reports]
        assert done.stopped
        restored = await lab.restore(done.checkpoint_id)
        assert restored.pid == tree.pid
        for report, earliest, latest in zip(reports, before, after, strict=True):
            assert_resumed(report, earliest, latest)
        restored_child = stat(child_pid)
        assert restored_child is not None
        assert restored_child.parent == tree.pid


async def test_a_restored_tree_can_be_checkpointed_and_restored_again(lab: Lab) -> None:
    with started_tree(lab.directory, COUNTER) as tree:
        for times in (1, 2):
            before = tree.report.read(Counter.TICKS)
            done = await lab.checkpoint(tree.pid, stop=True)
            tree.reap()
            wait_free(tree.pid)
            after = forgotten(tree.report)
            await lab.restore(done.checkpoint_id)
            assert_resumed(tree.report, before, after, times=times)


async def test_a_pid_that_is_in_use_is_not_taken_over(lab: Lab) -> None:
    with parent_and_child(lab) as (tree, child):
        done = await lab.checkpoint(tree.pid)
        with nothing_left(lab), pytest.raises(AlreadyExists):
            await lab.restore(done.checkpoint_id)
        assert_goes_on(tree.report)

        # The child alone keeps the session, whose number is the parent's pid.
        kill_all(str(tree.report.path))
        tree.reap()
        with nothing_left(lab), pytest.raises(AlreadyExists):
            await lab.restore(done.checkpoint_id)
        assert_goes_on(child)


async def test_what_only_containers_have_is_refused(lab: Lab) -> None:
    with started_tree(lab.directory, COUNTER) as tree:
        done = await lab.checkpoint(tree.pid, stop=True)
        tree.reap()
        wait_free(tree.pid)
        with nothing_left(lab):
            with pytest.raises(InvalidArgument):
                await lab.restore(done.checkpoint_id, container="a-name")
            with pytest.raises(InvalidArgument):
                await lab.restore(done.checkpoint_id, bundle=lab.directory)
        assert not is_taken(tree.pid)


async def test_namespaces_that_come_back(lab: Lab) -> None:
    before = ("unshare", "--ipc", "--uts", "--cgroup", "--time")
    with started_tree(lab.directory, COUNTER, *before) as tree:
        tree.report.wait_beyond(Counter.TICKS, 20)
        done = await lab.checkpoint(tree.pid, stop=True)
        tree.reap()
        tree.report.write(Counter.TICKS, 0)
        await lab.restore(done.checkpoint_id)
        tree.report.wait_beyond(Counter.TICKS, 20)
        assert namespace(tree.pid, "uts") != namespace(os.getpid(), "uts")


@pytest.mark.parametrize("kind", ["--mount", "--net", "--user"])
async def test_namespaces_that_would_not(lab: Lab, kind: str) -> None:
    """CRIU would dump all of them, and end them for it."""
    criu, hooked = lab.hook("pre-dump", "pass")
    with started_tree(lab.directory, COUNTER, "unshare", kind) as tree:
        with nothing_left(hooked), pytest.raises(TargetNotCheckpointable, match="namespace"):
            await hooked.checkpoint(tree.pid, stop=True)
        tree.report.wait_beyond(Counter.TICKS, tree.report.read(Counter.TICKS) + 10)
    assert criu.hooks() == []


@pytest.mark.parametrize("pid", [-1, 0, NO_PID])
async def test_a_pid_that_nobody_has(lab: Lab, pid: int) -> None:
    criu, hooked = lab.hook("pre-dump", "pass")
    with nothing_left(hooked), pytest.raises(TargetNotFound):
        await hooked.checkpoint(pid)
    assert criu.hooks() == []


@pytest.mark.parametrize("stop", [False, True], ids=["leave-running", "stop"])
@pytest.mark.parametrize("generation", [0, 1, -1], ids=["itself", "parent", "first"])
async def test_the_agent_and_its_ancestors(lab: Lab, generation: int, stop: bool) -> None:
    line = [psutil.Process(), *psutil.Process().parents()]
    criu, hooked = lab.hook("pre-dump", "pass")
    # Pid 1 of a pid namespace has no parent that it could see.
    pid = line[min(generation, len(line) - 1)].pid
    with nothing_left(hooked), pytest.raises(TargetNotCheckpointable, match="agent itself"):
        await hooked.checkpoint(pid, stop=stop)
    assert criu.hooks() == []


async def test_a_kernel_thread(lab: Lab) -> None:
    # Not where the tests have a pid namespace of their own.
    thread = next((pid for pid in psutil.pids() if _is_live_kernel_thread(pid)), None)
    if thread is None:
        pytest.skip("no kernel thread can be seen from here")
    criu, hooked = lab.hook("pre-dump", "pass")
    with nothing_left(hooked), pytest.raises(TargetNotCheckpointable, match="kernel thread"):
        await hooked.checkpoint(thread)
    assert criu.hooks() == []


def _is_live_kernel_thread(pid: int) -> bool:
    found = stat(pid)
    return found is not None and found.state not in "ZX" and is_kernel_thread(pid)


@pytest.fixture
def zombie() -> Iterator[int]:
    """The pid of a process that has ended and that nobody has waited for yet."""
    with subprocess.Popen(["true"], stdin=subprocess.DEVNULL) as ended:
        os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
        yield ended.pid


async def test_a_zombie(lab: Lab, zombie: int) -> None:
    criu, hooked = lab.hook("pre-dump", "pass")
    with nothing_left(hooked), pytest.raises(TargetNotCheckpointable, match="ended"):
        await hooked.checkpoint(zombie, stop=True)
    assert criu.hooks() == []
    found = stat(zombie)
    assert found is not None
    assert found.state == "Z"


async def test_a_thread_of_a_process(lab: Lab) -> None:
    ready, release = threading.Event(), threading.Event()

    def wait() -> None:
        ready.set()
        release.wait()

    thread = threading.Thread(target=wait)
    thread.start()
    try:
        ready.wait()
        with pytest.raises(TargetNotCheckpointable, match="thread of process"):
            await lab.checkpoint(thread.native_id or 0)
    finally:
        release.set()
        thread.join()
