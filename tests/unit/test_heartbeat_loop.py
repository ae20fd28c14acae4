"""Which heartbeats wait for a pod that Kubernetes brings back: its own, and no others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from agent.actions import Executor
from agent.heartbeat import Heartbeats
from agent.messages.model import Action, ActionRequest, RestoreSpec
from agent.metrics import Metrics
from agent.settings import Settings
from agent.targets import PodRef
from tests.fakes.held_worker import HeldWorker
from tests.pod_states import Node
from tests.waiting import eventually_async

EVERY = {"checkpoint-agent/heartbeat": "0.5s"}
BACK = ActionRequest("back", RestoreSpec("/store/x", pod=PodRef("u-back", "default", "back")))


def settings_of(directory: Path, *pods: str) -> Settings:
    """A node with these pods, and nothing that strains it."""
    node = Node(directory)
    for pod in pods:
        node.containerd(pod, None, uid=f"u-{pod}", sandbox=pod, annotations=EVERY)
        node.containerd(pod, uid=f"u-{pod}", sandbox=pod)
    calm = {f"{name}_pressure": 100.0 for name in ("cpu", "memory", "io")}
    return Settings.model_validate(
        {
            "state_dir": directory / "state",
            "pods": {"runc_roots": [node.runc_root]},
            "heartbeat": {"minimum_seconds": 0.5, "store_free": 0.0, "jitter": 0.0, **calm},
        }
    )


@asynccontextmanager
async def beating(settings: Settings) -> AsyncIterator[tuple[Executor, HeldWorker, Metrics]]:
    """An agent with heartbeats."""
    worker, metrics = HeldWorker(), Metrics("test")
    executor = Executor(settings, worker, metrics)
    await executor.start()
    beats = Heartbeats(settings, executor, metrics, paused=lambda: False)
    running = asyncio.create_task(beats.run())
    try:
        yield executor, worker, metrics
        assert not running.done()
    finally:
        running.cancel()
        await asyncio.wait({running})
        await executor.stop(0)
        await executor.close()


async def beats_of(executor: Executor, pod: str) -> list[Action]:
    """Its heartbeats."""
    found = await executor.list()
    return [
        each
        for each in found
        if each.request.spec.reason == "heartbeat"
        and each.event.pod is not None
        and each.event.pod.uid == f"u-{pod}"
    ]


async def until_skipped(metrics: Metrics, times: int) -> None:
    """Until the pod that comes back has been left out so often."""

    def skipped() -> float:
        name, labels = "checkpoint_agent_heartbeat_skips_total", {"reason": "restore"}
        return metrics.registry.get_sample_value(name, labels) or 0.0

    await eventually_async(lambda: skipped() >= times, "the pod that comes back being left out")


async def test_a_pod_that_comes_back_waits_alone(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, "back", "quick")
    async with beating(settings) as (executor, worker, metrics):
        await executor.submit(BACK)
        await eventually_async(lambda: "back" in worker.begun, "the restore")
        assert not executor.is_busy
        await until_skipped(metrics, 2)
        # The restore, and two heartbeats of the other one, whose second is after a skip.
        before = len(worker.begun)
        await until_skipped(metrics, 4)
        await eventually_async(
            lambda: len(worker.begun) >= before + 2, "the other one's heartbeats"
        )
        assert await beats_of(executor, "back") == []
        worker.release.set()
        await executor.wait("back")
        before = len(worker.begun)
        await eventually_async(lambda: len(worker.begun) >= before + 8, "heartbeats of both")
        assert await beats_of(executor, "back") != []


async def test_so_it_does_for_an_agent_that_was_started_again(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, "back", "quick")
    async with beating(settings) as (executor, worker, _):
        await executor.submit(BACK)
        await eventually_async(lambda: "back" in worker.begun, "the restore")
    assert worker.rolling_back == []
    async with beating(settings) as (executor, worker, metrics):
        await until_skipped(metrics, 2)
        await eventually_async(lambda: len(worker.begun) >= 2, "the other one's heartbeats")
        assert await beats_of(executor, "back") == []
        worker.release.set()
        await executor.wait("back")
