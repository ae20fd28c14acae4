"""An agent that stops or dies, and what the next one makes of its actions."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agent.actions.executor import Executor
from agent.actions.rows import Attempt
from agent.actions.worker import Reports, Untold
from agent.errors import ShuttingDown, StoreFailed
from agent.host.boot import Moment
from agent.messages.model import ActionRequest, State
from agent.metrics import Metrics
from tests.fakes.scripted_worker import ScriptedWorker, outcome, request
from tests.scripted_executors import executor, held, sent, settings, states
from tests.waiting import PATIENCE, eventually_async


class SilentWorker(ScriptedWorker):
    """As if the store were on a file system whose server is gone."""

    async def aftermath(
        self, request: ActionRequest, attempt: Attempt, begun: Moment | None
    ) -> None:
        await asyncio.Event().wait()


@asynccontextmanager
async def untold(directory: Path, *, patience: float = 3600.0) -> AsyncIterator[Executor]:
    """An executor that asks such a store, from its start to its stop."""
    made = Executor(settings(directory), SilentWorker(), Metrics("test"), patience=patience)
    await made.start()
    try:
        yield made
    finally:
        await made.stop(0)
        await made.close()


async def test_what_waits_is_resumed_at_the_next_start(tmp_path: Path) -> None:
    script, _ = held()
    first = ScriptedWorker({"a": script})
    async with executor(tmp_path, first, concurrency=1) as made:
        await made.submit(request("a"))
        await eventually_async(lambda: first.began == ["a"])
        await made.submit(request("b"))
        await made.submit(request("c"))
    second = ScriptedWorker()
    async with executor(tmp_path, second, concurrency=1) as made:
        assert (await made.wait("b")).state is State.READY
        assert (await made.wait("c")).state is State.READY
        stopped = (await made.get("a")).event.failure
        assert stopped is not None
        assert stopped.code == "agent_stopping"
        assert second.began == ["b", "c"]
        assert await states(made, "b") == [State.INITIALIZED, State.PROCESSING, State.READY]


async def test_what_runs_may_finish_within_the_time_for_it(tmp_path: Path) -> None:
    async def script(_reports: Reports) -> None:
        await asyncio.sleep(0.1)

    worker = ScriptedWorker({"a": script})
    async with executor(tmp_path, worker, grace=20) as made:
        await made.submit(request("a"))
        await eventually_async(lambda: worker.began)
        watching = asyncio.create_task(made.wait("a"))
        await asyncio.sleep(0)
    assert (await watching).state is State.READY


async def test_a_second_hurried_stop_cuts_the_first_short(tmp_path: Path) -> None:
    script, _ = held()
    worker = ScriptedWorker({"a": script})
    async with executor(tmp_path, worker) as made:
        await made.submit(request("a"))
        await eventually_async(lambda: worker.began)
        stopping = asyncio.create_task(made.stop(1000))
        await asyncio.sleep(0.01)
        with pytest.raises(ShuttingDown):
            await made.submit(request("b"))
        await made.stop(0)
        await stopping
        failure = (await made.get("a")).event.failure
    assert failure is not None
    assert failure.code == "agent_stopping"


async def test_watchers_of_what_is_resumed_later_are_told(tmp_path: Path) -> None:
    script, _ = held()
    worker = ScriptedWorker({"a": script})
    async with executor(tmp_path, worker, concurrency=1) as made:
        await made.submit(request("a"))
        await eventually_async(lambda: worker.began)
        await made.submit(request("b"))
        watching = asyncio.create_task(made.wait("b"))
        await asyncio.sleep(0.01)
    with pytest.raises(ShuttingDown):
        await watching


async def left_open(directory: Path) -> None:
    """A journal whose agent was killed in the middle of action `a`, with `b` waiting."""
    script, _ = held()
    worker = ScriptedWorker({"a": script})
    made = Executor(settings(directory, concurrency=1), worker, Metrics("test"))
    try:
        await made.start()
        await made.submit(request("a"))
        await eventually_async(lambda: worker.began)
        await made.submit(request("b"))
    finally:
        # What dies with a process, without a word to the journal.
        doomed = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in doomed:
            task.cancel()
        await asyncio.gather(*doomed, return_exceptions=True)
        await made.close()


async def test_what_was_committed_when_the_agent_died_is_ready(tmp_path: Path) -> None:
    await left_open(tmp_path)
    async with executor(tmp_path, ScriptedWorker(left={"a": [outcome("a")]})) as made:
        action = await made.wait("a")
        assert (action.state, action.event.checkpoint) == (State.READY, outcome("a"))
        assert (await made.wait("b")).state is State.READY


async def test_what_was_not_is_an_error_that_says_so(tmp_path: Path) -> None:
    await left_open(tmp_path)
    worker = ScriptedWorker(left={"a": [None]})
    async with executor(tmp_path, worker) as made:
        failure = (await made.wait("a")).event.failure
        assert failure is not None
        assert failure.code == "agent_restarted"
        assert "nothing is stored" in failure.state
        await made.wait("b")
        assert worker.began == ["b"]
        sequences = [each.sequence for each in await sent(made) if each.action_id == "a"]
        assert sequences == sorted(set(sequences))


async def test_while_nobody_can_tell_nothing_is_claimed(tmp_path: Path) -> None:
    await left_open(tmp_path)
    away = Untold("read s3://b: unreachable")
    async with executor(tmp_path, ScriptedWorker(left={"a": [away, away, outcome("a")]})) as made:
        assert made.is_busy
        assert (await made.wait("b")).state is State.READY
        await eventually_async(lambda: not made.is_busy)
        assert (await made.get("a")).state is State.PROCESSING
        assert (await made.wait("a")).state is State.READY


async def test_what_is_being_settled_is_left_for_the_next_start(tmp_path: Path) -> None:
    await left_open(tmp_path)
    away = Untold("read s3://b: unreachable")
    async with executor(tmp_path, ScriptedWorker(left={"a": [away] * 100})):
        pass
    async with executor(tmp_path, ScriptedWorker(left={"a": [outcome("a")]})) as made:
        assert (await made.wait("a")).state is State.READY


async def test_an_outcome_that_cannot_be_put_into_words_is_an_end_too(tmp_path: Path) -> None:
    await left_open(tmp_path)
    unspeakable = dataclasses.replace(outcome("a"), name="\udcff")
    async with executor(tmp_path, ScriptedWorker(left={"a": [unspeakable]})) as made:
        async with asyncio.timeout(20):
            failure = (await made.wait("a")).event.failure
        assert failure is not None
        assert failure.code == "internal"


async def test_what_a_pod_failed_of_is_its_end_also_when_that_was_a_store(tmp_path: Path) -> None:
    await left_open(tmp_path)
    failed = StoreFailed("read", "s3://b", "forbidden")
    async with executor(tmp_path, ScriptedWorker(left={"a": [failed]})) as made:
        async with asyncio.timeout(20):
            failure = (await made.wait("a")).event.failure
        assert failure is not None
        assert failure.code == "store_failed"


async def test_a_question_that_is_never_answered_has_an_end(tmp_path: Path) -> None:
    await left_open(tmp_path)
    async with untold(tmp_path, patience=0.2) as made:
        async with asyncio.timeout(PATIENCE):
            failure = (await made.wait("a")).event.failure
        assert failure is not None
        assert failure.code == "checkpoint_unknown"
        assert await states(made) == [State.INITIALIZED, State.PROCESSING, State.ERROR]


async def test_a_question_that_is_never_answered_can_be_given_up(tmp_path: Path) -> None:
    await left_open(tmp_path)
    async with untold(tmp_path) as made:
        async with asyncio.timeout(PATIENCE):
            failure = (await made.cancel("a")).event.failure
        assert failure is not None
        assert failure.code == "checkpoint_unknown"
        # The other one was begun by nobody: it is given up as ever, or done.
        assert (await made.wait("b")).state is State.READY


async def test_what_is_given_up_while_the_agent_stops_is_left_to_the_next(tmp_path: Path) -> None:
    await left_open(tmp_path)
    async with untold(tmp_path) as made:
        await made.wait("b")
        stopping = asyncio.create_task(made.stop(0))
        await asyncio.sleep(0)
        async with asyncio.timeout(PATIENCE):
            assert (await made.cancel("a")).state is State.PROCESSING
            await stopping
    async with executor(tmp_path, ScriptedWorker(left={"a": [outcome("a")]})) as second:
        assert (await second.wait("a")).state is State.READY
