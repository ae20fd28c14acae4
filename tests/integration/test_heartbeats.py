"""Heartbeats of real pods: taken, kept, put off, and nobody else's checkpoints touched."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from agent.messages.model import ActionRequest, CheckpointSpec, State
from agent.operation import journal
from agent.targets import PodRef
from bench.pods import uid_of
from tests.integration.aftermath import assert_unharmed
from tests.integration.heartbeats import EVERY, beating, pod_of
from tests.integration.lab import Lab
from tests.waiting import eventually_async

pytestmark = [pytest.mark.root, pytest.mark.criu]


async def test_it_beats_and_keeps_the_newest_and_what_was_made_by_hand(lab: Lab) -> None:
    container = pod_of(lab, "web", EVERY | {"checkpoint-agent/keep": "1"})
    quiet = pod_of(lab, "quiet", {})
    async with beating(lab) as node:
        by_hand = CheckpointSpec(PodRef(namespace="default", name="web"), name="by hand")
        await node.executor.submit(ActionRequest("by-hand", by_hand))
        ended = await node.executor.wait("by-hand")
        assert ended.state is State.READY, ended.event.failure
        await eventually_async(
            lambda: node.figure("heartbeats_deleted_total") >= 2, "three heartbeats"
        )
    assert_unharmed(container)
    assert_unharmed(quiet)
    made = node.manifests()
    assert [each.name for each in made if each.reason == "manual"] == ["by hand"]
    (newest,) = [each for each in made if each.reason == "heartbeat"]
    assert newest is made[-1]
    assert newest.pod is not None
    assert newest.pod.uid == uid_of("web")


async def test_what_a_restore_reads_or_is_about_to_read_stays(lab: Lab) -> None:
    container = pod_of(lab, "web", EVERY | {"checkpoint-agent/keep": "1"})
    async with beating(lab) as node:
        await eventually_async(lambda: bool(node.manifests()), "the first heartbeat")
        first = node.manifests()[0].checkpoint_id
        # A restore that another program of this machine has under way.
        record = journal.Record("restore", journal.new_id(), first, lab.store.url, "c")
        operation = journal.begin(lab.state_dir, record)
        try:
            await eventually_async(
                lambda: node.figure("heartbeats_deleted_total") >= 1, "a deletion"
            )
            assert first in [each.checkpoint_id for each in node.manifests()]
        finally:
            operation.remove()
        await eventually_async(
            lambda: first not in [each.checkpoint_id for each in node.manifests()],
            "what nobody reads any more being deleted",
        )
    assert_unharmed(container)


def proc(directory: Path, **pressure: float) -> Path:
    """A /proc that tells of some pressure, and of none where it is not given."""
    made = directory / "proc"
    (made / "pressure").mkdir(parents=True, exist_ok=True)
    for name in ("cpu", "memory", "io"):
        percent = pressure.get(name, 0.0)
        (made / "pressure" / name).write_text(
            f"some avg10={percent:.2f} avg60=99.00 avg300=99.00 total=29928945\n"
            "full avg10=99.00 avg60=99.00 avg300=99.00 total=0\n"
        )
    return made


async def test_it_waits_for_pressure_to_go_and_says_so_once(
    lab: Lab, caplog: pytest.LogCaptureFixture
) -> None:
    pod_of(lab, "web")
    caplog.set_level("INFO")
    strained = proc(lab.directory, memory=20.5)
    async with beating(lab, proc=strained, memory_pressure=20.0) as node:
        skips = 'heartbeat_skips_total{reason="memory"}'
        await eventually_async(lambda: node.figure(skips) >= 3, "three skips")
        assert node.manifests() == []
        assert caplog.text.count("heartbeats wait") == 1
        proc(lab.directory, memory=20.0)
        await eventually_async(lambda: bool(node.manifests()), "a heartbeat")


async def test_it_waits_for_whoever_was_asked_for(lab: Lab) -> None:
    pod_of(lab, "web")
    criu, hooked = lab.hook("post-dump")
    async with beating(hooked) as node:
        await eventually_async(criu.reached, "the first heartbeat's dump")
        by_hand = ActionRequest("by-hand", CheckpointSpec(PodRef(uid=uid_of("web"))))
        await node.executor.submit(by_hand)
        criu.release()
        await node.executor.wait("by-hand")
        # Ended, that is: a manifest may be taken back when the executor stops.
        ended = 'heartbeats_total{outcome="ready"}'
        await eventually_async(lambda: node.figure(ended) >= 2, "the next heartbeat")
    reasons = [each.reason for each in node.manifests()]
    assert reasons[:3] == ["heartbeat", "manual", "heartbeat"]


async def test_failures_make_it_rarer(lab: Lab) -> None:
    # A container of plain runc has no overlay, so that each of them fails.
    container = pod_of(lab, "web", {"checkpoint-agent/heartbeat": "0.5s"})
    async with beating(lab, jitter=0.0) as node:
        failed = 'heartbeats_total{outcome="error"}'
        await eventually_async(lambda: node.figure(failed) >= 3, "three failures")
        newest, second, first = (await node.executor.list())[-3:]
        assert newest.event.failure is not None
        assert newest.event.failure.code == "target_not_checkpointable"
        # At least two intervals, then four: a slow machine makes them longer, and never shorter.
        assert second.accepted - first.accepted > timedelta(seconds=0.95)
        assert newest.accepted - second.accepted > timedelta(seconds=1.95)
    assert node.manifests() == []
    assert_unharmed(container)
