"""A node that goes: pods that opted in are checkpointed before it does, the others are not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agent.drain import Drainer, Notice
from agent.drain.file import FileSource
from agent.messages.model import ActionRequest, CheckpointSpec, State
from agent.targets import PodRef
from bench.bundle import COUNTER, memory
from bench.pods import run_container, uid_of
from bench.runc import Container
from tests.fakes.somebody import Somebody
from tests.integration.aftermath import assert_unharmed
from tests.integration.heartbeats import Node, executing_with, pod_of
from tests.integration.lab import Lab
from tests.waiting import eventually_async

pytestmark = [pytest.mark.root, pytest.mark.criu]

OPTED_IN = {"checkpoint-agent/drain": "true", "checkpoint-agent/kind": "simple"}


@asynccontextmanager
async def draining(lab: Lab, file: Path, *others: Somebody) -> AsyncIterator[tuple[Drainer, Node]]:
    """A node that is drained as soon as a file appears, or others say so."""
    tables: dict[str, dict[str, object]] = {
        "drain": {"file": str(file), "deadline_seconds": 3600.0},
        "checkpoint": {"concurrency": 1},
    }
    async with executing_with(lab, **tables) as (settings, node):
        drainer = Drainer(settings, node.executor, node.metrics, [FileSource(file), *others])
        task = asyncio.create_task(drainer.run())
        try:
            yield drainer, node
            assert not task.done(), task
        finally:
            task.cancel()
            await asyncio.wait({task})


def big_pod(lab: Lab, name: str, mebibytes: int = 96) -> Container:
    """One that counts, and has more memory than the others."""
    return run_container(lab.runc, name, "app", COUNTER, memory(mebibytes), annotations=OPTED_IN)


def by_hand(pod: str) -> ActionRequest:
    """A checkpoint that somebody asks for."""
    return ActionRequest(pod, CheckpointSpec(PodRef(namespace="default", name=pod)))


def pods(node: Node) -> list[str]:
    """Of the checkpoints that there are, oldest first."""
    return [each.pod.name for each in node.manifests() if each.pod is not None]


def outcomes(node: Node) -> dict[str, float]:
    """How many pods came to what."""
    names = ("ready", "error", "late", "not_begun", "withdrawn")
    counts = {name: node.figure(f'drain_pods_total{{outcome="{name}"}}') for name in names}
    return {name: count for name, count in counts.items() if count}


async def test_those_that_opted_in_smallest_first_and_before_what_waits(lab: Lab) -> None:
    big, small = big_pod(lab, "big"), pod_of(lab, "small", OPTED_IN)
    heartbeat = pod_of(lab, "beats", {"checkpoint-agent/heartbeat": "not a duration",
                                      "checkpoint-agent/kind": "simple"})  # fmt: skip
    others = [
        pod_of(lab, "none", {}),
        pod_of(lab, "declines", {"checkpoint-agent/drain": "false"}),
        pod_of(lab, "nonsense", {"checkpoint-agent/drain": "perhaps"}),
    ]
    criu, hooked = lab.hook("post-dump")
    file = lab.directory / "drain"
    async with draining(hooked, file) as (_, node):
        # Something is under way, and something else waits for its turn.
        await node.executor.submit(by_hand("none"))
        await eventually_async(criu.reached, "the dump")
        await node.executor.submit(by_hand("declines"))
        file.touch()
        await eventually_async(lambda: node.executor.queued == 2, "the drain waiting")
        criu.release()
        await eventually_async(lambda: outcomes(node) == {"ready": 3.0}, "the drain")
        assert (await node.executor.wait("declines")).state is State.READY
        made = pods(node)
        assert made[0] == "none"
        assert set(made[1:3]) == {"small", "beats"}
        assert made[3:] == ["big", "declines"]
        assert all(each.reason == "heartbeat" for each in node.manifests()[1:4])
    for container in (big, small, heartbeat, *others):
        assert_unharmed(container)


async def test_what_does_not_fit_is_told_and_nothing_stays_frozen(
    lab: Lab, caplog: pytest.LogCaptureFixture
) -> None:
    small, big = pod_of(lab, "small", OPTED_IN), big_pod(lab, "big")
    # A dump that takes longer than there is time.
    criu, hooked = lab.hook("post-dump")
    file, cloud = lab.directory / "drain", Somebody("cloud")
    caplog.set_level("INFO")
    async with draining(hooked, file, cloud) as (drainer, node):
        file.touch()
        await eventually_async(criu.reached, "the dump")
        cloud.say(Notice("the time is up", 0.1))
        # Only then: a CRIU that is held cannot put anything back.
        await eventually_async(lambda: "giving up" in caplog.text, "the end of the time")
        criu.release()
        await eventually_async(lambda: not drainer.draining, "the drain's end")
        assert outcomes(node) == {"late": 1.0, "not_begun": 1.0}
        assert (node.executor.running, node.executor.queued) == (0, 0)
        assert lab.operations() == []
    assert lab.stored() == []
    assert_unharmed(small)
    assert_unharmed(big)


async def test_a_notice_that_is_taken_back_stops_what_has_not_begun(lab: Lab) -> None:
    first, second = pod_of(lab, "first", OPTED_IN), big_pod(lab, "second")
    criu, hooked = lab.hook("post-dump")
    file = lab.directory / "drain"
    async with draining(hooked, file) as (drainer, node):
        file.touch()
        await eventually_async(criu.reached, "the dump")
        file.unlink()
        await eventually_async(lambda: node.figure("draining") == 0, "the notice being taken back")
        criu.release()
        await eventually_async(lambda: not drainer.draining, "the drain's end")
        assert outcomes(node) == {"ready": 1.0, "withdrawn": 1.0}
        assert pods(node) == ["first"]
        # It is a new one when it comes again.
        file.touch()
        await eventually_async(
            lambda: outcomes(node) == {"ready": 3.0, "withdrawn": 1.0}, "a second one"
        )
    assert_unharmed(first)
    assert_unharmed(second)


async def test_only_one_drain_for_all_notices(lab: Lab) -> None:
    container = pod_of(lab, "web", OPTED_IN)
    file, cloud = lab.directory / "drain", Somebody("cloud")
    async with draining(lab, file, cloud) as (drainer, node):
        file.touch()
        await eventually_async(lambda: outcomes(node) == {"ready": 1.0}, "the drain")
        # It has just been done: neither the cloud's nor stopping now does it again.
        await cloud.say(Notice("spot instance", 3600.0)).wait()
        await drainer.finish()
        assert outcomes(node) == {"ready": 1.0}
    (made,) = node.manifests()
    assert made.pod is not None
    assert made.pod.uid == uid_of("web")
    assert_unharmed(container)


async def test_what_drains_have_made_does_not_pile_up(lab: Lab) -> None:
    once = OPTED_IN | {"checkpoint-agent/keep": "1"}
    web = pod_of(lab, "web", once)
    unclear = pod_of(lab, "unclear", OPTED_IN | {"checkpoint-agent/keep": "few"})
    file = lab.directory / "drain"
    async with draining(lab, file) as (_, node):
        await node.executor.submit(by_hand("web"))
        assert (await node.executor.wait("web")).state is State.READY
        file.touch()
        await eventually_async(lambda: outcomes(node) == {"ready": 2.0}, "the first drain")
        file.unlink()
        await eventually_async(lambda: node.figure("draining") == 0, "the notice being taken back")
        assert sorted(pods(node)) == ["unclear", "web", "web"]
        first = node.manifests()
        file.touch()
        await eventually_async(lambda: outcomes(node) == {"ready": 4.0}, "the second drain")
        await eventually_async(lambda: len(node.manifests()) == 4, "the first one's being deleted")
        made = node.manifests()
        assert [each.reason for each in made if each in first] == ["manual", "heartbeat"]
        assert sorted(pods(node)) == ["unclear", "unclear", "web", "web"]
        # The agent is stopped with the node, and does not leave it to the next one.
        file.unlink()
        await eventually_async(lambda: node.figure("draining") == 0, "the notice being taken back")
    async with draining(lab, file) as (drainer, node):
        await drainer.finish()
        assert outcomes(node) == {"ready": 2.0}
        assert sorted(pods(node)) == ["unclear", "unclear", "unclear", "web", "web"]
    assert_unharmed(web)
    assert_unharmed(unclear)
