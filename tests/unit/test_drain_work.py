"""Drains of pods that stand for nothing: their order, and who waits for whom."""

from __future__ import annotations

import asyncio
from pathlib import Path

from agent.drain.candidates import Candidate
from agent.drain.deadline import Deadline
from agent.drain.work import Outcome, Work
from agent.messages.model import ActionRequest, CheckpointSpec, State
from agent.targets import Kind, PodRef
from tests.fakes.held_worker import executing
from tests.waiting import eventually_async


def pod(name: str, size: int = 1) -> Candidate:
    """Held by the worker, unless its name says that it is quick."""
    return Candidate(
        PodRef(uid=f"u-{name}", namespace="default", name=name), Kind.SIMPLE, size, keep=2
    )


def by_hand(candidate: Candidate) -> ActionRequest:
    """What somebody else asks for."""
    return ActionRequest("by-hand", CheckpointSpec(candidate.pod))


async def test_nobody_waits_behind_a_pod_that_somebody_else_works_on(tmp_path: Path) -> None:
    busy = pod("busy")
    async with executing(tmp_path, concurrency=2) as (executor, worker):
        await executor.submit(by_hand(busy))
        await executor.wait("by-hand", {State.PROCESSING})
        work = Work(executor, Deadline(3600.0))
        draining = asyncio.create_task(work.run([busy, pod("quick-1"), pod("quick-2")]))
        await eventually_async(lambda: work.outcomes[Outcome.READY] == 2, "the others")
        assert not draining.done()
        worker.release.set()
        await draining
        assert work.outcomes == {Outcome.READY: 3}


async def test_without_room_one_is_asked_for_at_a_time(tmp_path: Path) -> None:
    async with executing(tmp_path, concurrency=1) as (executor, worker):
        await executor.submit(by_hand(pod("other")))
        await executor.wait("by-hand", {State.PROCESSING})
        work = Work(executor, Deadline(3600.0))
        draining = asyncio.create_task(work.run([pod("quick-1"), pod("quick-2")]))
        await eventually_async(lambda: executor.queued == 1, "the first one")
        await asyncio.sleep(0.7)
        assert executor.queued == 1
        worker.release.set()
        await draining
        assert work.outcomes == {Outcome.READY: 2}


async def test_at_the_deadline_everything_has_an_outcome(tmp_path: Path) -> None:
    async with executing(tmp_path, concurrency=1) as (executor, worker):
        deadline = Deadline(3600.0)
        work = Work(executor, deadline)
        draining = asyncio.create_task(work.run([pod("first"), pod("second"), pod("big", 10**14)]))
        await eventually_async(
            lambda: executor.queued == 1 and bool(worker.begun), "the second one"
        )
        deadline.tell(asyncio.get_running_loop().time() + 0.1)
        await eventually_async(lambda: bool(worker.rolling_back), "the deadline")
        worker.release.set()
        await draining
        assert work.outcomes == {Outcome.LATE: 1, Outcome.NOT_BEGUN: 2}
        assert (executor.running, executor.queued) == (0, 0)
