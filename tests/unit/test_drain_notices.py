"""Which notices drain a node, and which find it drained or being drained."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from agent.actions import Executor
from agent.drain import Drainer, Notice
from agent.drain.candidates import saved_lately
from agent.messages.model import ActionRequest, CheckpointSpec
from agent.metrics import Metrics
from agent.settings import Settings
from agent.targets import PodRef
from tests.fakes.held_worker import HeldWorker
from tests.fakes.somebody import Somebody
from tests.pod_states import Node
from tests.waiting import eventually_async

DRAIN = {"checkpoint-agent/drain": "true"}


CORDON, SHUTDOWN = Notice("cordoned"), Notice("shut down")


def settings_of(directory: Path, *pods: str, seconds: float) -> Settings:
    """A node with these pods, all of which opted in."""
    node = Node(directory)
    for pod in pods:
        node.containerd(pod, None, uid=f"u-{pod}", sandbox=pod, annotations=DRAIN)
        node.containerd(pod, uid=f"u-{pod}", sandbox=pod)
    return Settings.model_validate(
        {
            "state_dir": directory / "state",
            "pods": {"runc_roots": [node.runc_root]},
            "drain": {"deadline_seconds": seconds},
            "checkpoint": {"concurrency": 1},
        }
    )


@asynccontextmanager
async def agent(
    settings: Settings, worker: HeldWorker
) -> AsyncIterator[tuple[Executor, Drainer, Somebody, Somebody]]:
    """One from its start to its stop."""
    metrics = Metrics("test")
    executor = Executor(settings, worker, metrics)
    await executor.start()
    cluster, machine = Somebody("cluster"), Somebody("machine")
    drainer = Drainer(settings, executor, metrics, [cluster, machine])
    running = asyncio.create_task(drainer.run())
    await cluster.heard.wait()
    await machine.heard.wait()
    try:
        yield executor, drainer, cluster, machine
        assert not running.done()
    finally:
        worker.release.set()
        running.cancel()
        await asyncio.wait({running})
        await executor.stop(0)
        await executor.close()


@asynccontextmanager
async def draining(
    directory: Path, pod: str, *, seconds: float
) -> AsyncIterator[tuple[Drainer, HeldWorker, Somebody, Somebody]]:
    """A node with one pod."""
    worker = HeldWorker()
    made = agent(settings_of(directory, pod, seconds=seconds), worker)
    async with made as (_, drainer, cluster, machine):
        yield drainer, worker, cluster, machine


async def test_a_notice_while_the_agent_is_stopped_waits_for_that_drain(tmp_path: Path) -> None:
    async with draining(tmp_path, "held", seconds=3600.0) as (drainer, worker, _, machine):
        finishing = asyncio.create_task(drainer.finish())
        await eventually_async(lambda: len(worker.begun) == 1, "the drain")
        drained = machine.say(SHUTDOWN)
        await asyncio.sleep(0.1)
        assert not drained.is_set()
        # Nobody takes back that the agent is being stopped.
        machine.say(None)
        machine.say(SHUTDOWN)
        await asyncio.sleep(0.1)
        assert (len(worker.begun), worker.rolling_back) == (1, [])
        worker.release.set()
        await finishing
        async with asyncio.timeout(10):
            await drained.wait()
        assert len(worker.begun) == 1
        assert not drainer.draining


async def test_what_was_drained_a_moment_ago_is_not_again_but_for_a_new_notice(
    tmp_path: Path,
) -> None:
    async with draining(tmp_path, "quick", seconds=3600.0) as (drainer, worker, cluster, machine):
        async with asyncio.timeout(20):
            await cluster.say(CORDON).wait()
            assert len(worker.begun) == 1
            await machine.say(SHUTDOWN).wait()
            machine.say(SHUTDOWN)
            machine.say(None)
            assert len(worker.begun) == 1
            cluster.say(None)
            # When none is left, the next one is a new one.
            await cluster.say(CORDON).wait()
            assert len(worker.begun) == 2
            await drainer.finish()
        assert len(worker.begun) == 2


async def test_a_node_that_was_cordoned_long_ago_is_drained_again(tmp_path: Path) -> None:
    async with draining(tmp_path, "quick", seconds=0.01) as (_, worker, cluster, machine):
        async with asyncio.timeout(20):
            # All the time in the world, and yet it has not just been done any more.
            await cluster.say(Notice("cordoned", 3600.0)).wait()
            assert len(worker.begun) == 1
            await asyncio.sleep(0.05)
            await machine.say(Notice("shut down", 3600.0)).wait()
        assert len(worker.begun) == 2


async def test_a_notice_that_is_taken_back_at_once_leaves_the_other_one(tmp_path: Path) -> None:
    async with draining(tmp_path, "quick", seconds=3600.0) as (_, worker, cluster, machine):
        cluster.say(CORDON)
        drained = machine.say(SHUTDOWN)
        cluster.say(None)
        async with asyncio.timeout(20):
            await drained.wait()
        assert len(worker.begun) == 1


async def test_a_notice_that_is_taken_back_at_once_is_none(tmp_path: Path) -> None:
    async with draining(tmp_path, "quick", seconds=3600.0) as (_, worker, cluster, _machine):
        cluster.say(CORDON)
        drained = cluster.say(None)
        async with asyncio.timeout(20):
            await drained.wait()
        assert worker.begun == []


async def test_a_notice_that_says_how_long_there_is_replaces_what_was_assumed(
    tmp_path: Path,
) -> None:
    async with draining(tmp_path, "held", seconds=0.5) as (_, worker, cluster, machine):
        cluster.say(CORDON)
        drained = machine.say(Notice("spot", 3600.0))
        await eventually_async(lambda: len(worker.begun) == 1, "the drain")
        await asyncio.sleep(1.0)
        assert (worker.rolling_back, drained.is_set()) == ([], False)
        worker.release.set()
        async with asyncio.timeout(20):
            await drained.wait()
        assert len(worker.begun) == 1


async def test_so_it_does_while_a_drain_goes_on_and_of_two_the_earlier_counts(
    tmp_path: Path,
) -> None:
    async with draining(tmp_path, "held", seconds=3600.0) as (_, worker, cluster, machine):
        drained = cluster.say(CORDON)
        await eventually_async(lambda: len(worker.begun) == 1, "the drain")
        machine.say(Notice("spot", 0.1))
        await eventually_async(lambda: len(worker.rolling_back) == 1, "the end of the time")
        # What is announced meanwhile gives the time back: it is drained again.
        cluster.say(None)
        cluster.say(Notice("not so soon", 3600.0))
        worker.release.set()
        async with asyncio.timeout(20):
            await drained.wait()
        assert len(worker.begun) == 2


async def test_a_drain_that_left_some_is_not_done(tmp_path: Path) -> None:
    async with draining(tmp_path, "held", seconds=3600.0) as (drainer, worker, cluster, machine):
        drained = cluster.say(CORDON)
        await eventually_async(lambda: len(worker.begun) == 1, "the drain")
        machine.say(Notice("spot", 0.1))
        await eventually_async(lambda: len(worker.rolling_back) == 1, "the end of the time")
        worker.release.set()
        async with asyncio.timeout(20):
            await drained.wait()
            assert len(worker.begun) == 1
            await drainer.finish()
        assert len(worker.begun) == 2


async def test_who_stops_the_agent_waits_no_longer_than_a_drain_may_take(tmp_path: Path) -> None:
    async with draining(tmp_path, "held", seconds=0.1) as (drainer, worker, cluster, _):
        cluster.say(Notice("spot", 3600.0))
        await eventually_async(lambda: len(worker.begun) == 1, "the drain")
        finishing = asyncio.create_task(drainer.finish())
        await eventually_async(lambda: len(worker.rolling_back) == 1, "the end of the time")
        worker.release.set()
        async with asyncio.timeout(20):
            await finishing
        # No time is left to begin it once more.
        assert len(worker.begun) == 1


async def pods_of(executor: Executor, action_ids: list[str]) -> list[str]:
    """Names of the pods that these actions have taken."""
    pods = [(await executor.get(action_id)).event.pod for action_id in action_ids]
    return [pod.name for pod in pods if pod is not None]


async def test_an_agent_that_is_started_again_goes_on_with_those_that_are_not_saved(
    tmp_path: Path,
) -> None:
    settings = settings_of(tmp_path, "a-quick", "b-quick", "c-held", seconds=3600.0)
    first, second = HeldWorker(), HeldWorker()
    async with agent(settings, first) as (executor, _, cluster, _):
        cluster.say(CORDON)
        await eventually_async(lambda: len(first.begun) == 3, "the third pod")
        assert await pods_of(executor, first.begun) == ["a-quick", "b-quick", "c-held"]
        stopping = asyncio.create_task(executor.stop(0))
        await eventually_async(lambda: bool(first.rolling_back), "the end of the third one")
        first.release.set()
        await stopping
    second.release.set()
    async with agent(settings, second) as (executor, _, cluster, _):
        async with asyncio.timeout(20):
            await cluster.say(CORDON).wait()
        order = ["c-held", "a-quick", "b-quick"]
        assert await pods_of(executor, second.begun) == order
        # Of somebody else's wishes, and of what is too long ago, nobody takes account.
        await executor.submit(ActionRequest("m", CheckpointSpec(PodRef("u-quick"))))
        await executor.wait("m")
        assert await saved_lately(executor, 3600.0) == {f"u-{name}" for name in order}
        assert await saved_lately(executor, 0.0) == set()
