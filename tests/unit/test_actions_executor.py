"""Actions from their acceptance to their end, whatever happens in between."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agent.actions.executor import Executor
from agent.actions.worker import Reports
from agent.errors import (
    ActionNotFound,
    AlreadyExists,
    DumpFailed,
    InvalidArgument,
    PodNotFound,
    QueueFull,
    ShuttingDown,
    StoreFailed,
)
from agent.messages.events import event_from
from agent.messages.model import ActionType, Event, State
from agent.messages.requests import from_json
from agent.metrics import Metrics
from agent.pb.checkpoint_agent.v1 import actions_pb2 as pb
from agent.report import Update
from agent.settings import Settings
from tests.fakes.scripted_worker import Script, ScriptedWorker, outcome, request


def settings(directory: Path, **checkpoint: int) -> Settings:
    """A node with a broker, whatever becomes of that."""
    return Settings.model_validate(
        {"state_dir": directory, "checkpoint": checkpoint, "nats": {"url": "nats://127.0.0.1:1"}}
    )


@asynccontextmanager
async def executor(
    directory: Path, worker: ScriptedWorker, *, grace: float = 0.0, **checkpoint: int
) -> AsyncIterator[Executor]:
    """One from its start to its stop."""
    made = Executor(settings(directory, **checkpoint), worker, Metrics("test"))
    await made.start()
    try:
        yield made
    finally:
        await made.stop(grace)
        await made.close()


async def sent(made: Executor) -> list[Event]:
    """What waits for the broker."""
    rows = await made.outbox.next(10_000)
    return [event_from(from_json(row.payload, pb.ActionEvent())) for row in rows]


async def states(made: Executor, action_id: str = "a") -> list[State]:
    return [each.state for each in await sent(made) if each.action_id == action_id]


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.001)


def held() -> tuple[Script, asyncio.Event]:
    """A script that waits until the event is set."""
    gate = asyncio.Event()

    async def script(_reports: Reports) -> None:
        await gate.wait()

    return script, gate


def raising(error: BaseException) -> Script:
    async def script(_reports: Reports) -> None:
        raise error

    return script


async def test_states_come_in_order_and_all_are_sent(tmp_path: Path) -> None:
    async def script(reports: Reports) -> None:
        reports.captured(outcome("a"))

    async with executor(tmp_path, ScriptedWorker({"a": script})) as made:
        assert (await made.submit(request("a"))).state is State.INITIALIZED
        action = await made.wait("a")
        assert action.state is State.READY
        assert action.event.checkpoint == outcome("a")
        events = await sent(made)
        assert [each.sequence for each in events] == [1, 2, 3, 4]
        assert [each.state for each in events] == [
            State.INITIALIZED, State.PROCESSING, State.CHECKPOINT_CREATED, State.READY,
        ]  # fmt: skip
        assert events[2].checkpoint == outcome("a")
        assert (made.running, made.queued) == (0, 0)


async def test_every_failure_is_an_error_event_with_what_to_do(tmp_path: Path) -> None:
    failures: dict[str, tuple[Exception, str]] = {
        "dump": (DumpFailed("container 'x'", "no", "the log"), "dump_failed"),
        "store": (StoreFailed("write", "s3://b", "forbidden"), "store_failed"),
        "bug": (ZeroDivisionError("oh"), "internal"),
    }
    worker = ScriptedWorker({name: raising(error) for name, (error, _) in failures.items()})
    worker.refused["gone"] = PodNotFound("pod x/y")
    worker.refused["wrong"] = InvalidArgument("checkpoint.overrides.criuOpts", "no")
    async with executor(tmp_path, worker) as made:
        for name in (*failures, "gone", "wrong"):
            await made.submit(request(name))
        for name, (_, code) in failures.items():
            failure = (await made.wait(name)).event.failure
            assert failure is not None
            assert failure.code == code
            assert failure.message
            assert failure.state
        assert (await made.wait("dump")).event.failure.log_tail == "the log"  # type: ignore[union-attr]
        assert "check free space" in (await made.wait("store")).event.failure.hint  # type: ignore[union-attr]
        # Refused before its turn: never processing.
        assert (await made.wait("gone")).event.failure.code == "pod_not_found"  # type: ignore[union-attr]
        assert await states(made, "gone") == [State.INITIALIZED, State.ERROR]
        wrong = (await made.wait("wrong")).event.failure
        assert wrong is not None
        assert wrong.field == "checkpoint.overrides.criuOpts"
        # The agent goes on.
        await made.submit(request("next"))
        assert (await made.wait("next")).state is State.READY


async def test_a_failure_after_it_was_captured_is_an_error_event_too(tmp_path: Path) -> None:
    async def script(reports: Reports) -> None:
        reports.captured(outcome("a"))
        raise StoreFailed("write", "s3://b", "gone")

    worker = ScriptedWorker({"a": script}, asynchronous={"a"})
    async with executor(tmp_path, worker) as made:
        await made.submit(request("a"))
        assert (await made.wait("a")).state is State.ERROR
        assert await states(made) == [
            State.INITIALIZED, State.PROCESSING, State.CHECKPOINT_CREATED, State.ERROR,
        ]  # fmt: skip


async def test_the_same_id_is_the_same_action(tmp_path: Path) -> None:
    worker = ScriptedWorker()
    async with executor(tmp_path, worker) as made:
        await asyncio.gather(*(made.submit(request("a")) for _ in range(20)))
        await made.wait("a")
        assert (await made.submit(request("a"))).state is State.READY
        with pytest.raises(AlreadyExists):
            await made.submit(request("a", "another"))
        assert worker.began == ["a"]
        assert await states(made) == [State.INITIALIZED, State.PROCESSING, State.READY]


async def test_asynchronous_ones_give_their_slot_back_but_not_their_target(tmp_path: Path) -> None:
    stored = asyncio.Event()

    async def script(reports: Reports) -> None:
        reports.captured(outcome("a"))
        await stored.wait()

    worker = ScriptedWorker({"a": script}, asynchronous={"a"})
    async with executor(tmp_path, worker, concurrency=1) as made:
        await made.submit(request("a", "x"))
        await made.submit(request("same", "x"))
        await made.submit(request("other", "y"))
        assert (await made.wait("other")).state is State.READY
        created = await made.wait("a", {State.CHECKPOINT_CREATED})
        assert created.state is State.CHECKPOINT_CREATED
        assert worker.began == ["a", "other"]
        assert (made.running, made.queued) == (1, 1)
        stored.set()
        assert (await made.wait("a")).state is State.READY
        assert (await made.wait("same")).state is State.READY


async def test_what_is_urgent_is_never_too_much_and_begins_first(tmp_path: Path) -> None:
    script, gate = held()
    worker = ScriptedWorker({"a": script})
    async with executor(tmp_path, worker, concurrency=1, queue_limit=1) as made:
        await made.submit(request("a"))
        await until(lambda: worker.began == ["a"])
        await made.submit(request("b"))
        await made.submit(request("now"), urgent=True)
        # It has to have asked for its turn.
        await until(lambda: made.queued == 2)
        await asyncio.sleep(0.05)
        gate.set()
        await made.wait("b")
        assert worker.began == ["a", "now", "b"]


async def test_too_many_are_refused_and_not_recorded(tmp_path: Path) -> None:
    script, gate = held()
    worker = ScriptedWorker({"a": script})
    async with executor(tmp_path, worker, concurrency=1, queue_limit=2) as made:
        await made.submit(request("a"))
        await until(lambda: worker.began == ["a"])
        results = await asyncio.gather(
            *(made.submit(request(name)) for name in ("b", "c", "d", "e")), return_exceptions=True
        )
        assert [type(each) for each in results].count(QueueFull) == 2
        assert made.queued == 2
        with pytest.raises(ActionNotFound):
            await made.get("e")
        # What is known is answered all the same.
        assert (await made.submit(request("b"))).state is State.INITIALIZED
        gate.set()
        await made.wait("c")
        await made.submit(request("e"))
        assert (await made.wait("e")).state is State.READY


async def test_what_waits_is_cancelled_at_once(tmp_path: Path) -> None:
    script, gate = held()
    worker = ScriptedWorker({"a": script})
    async with executor(tmp_path, worker, concurrency=1) as made:
        await made.submit(request("a"))
        await until(lambda: worker.began == ["a"])
        await made.submit(request("b"))
        cancelled = await made.cancel("b")
        assert cancelled.event.failure is not None
        assert cancelled.event.failure.code == "cancelled"
        assert await states(made, "b") == [State.INITIALIZED, State.ERROR]
        gate.set()
        assert (await made.wait("a")).state is State.READY
        assert worker.began == ["a"]


async def test_what_runs_is_put_back_before_cancel_returns(tmp_path: Path) -> None:
    put_back = False

    async def script(_reports: Reports) -> None:
        nonlocal put_back
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.05)
            put_back = True

    worker = ScriptedWorker({"a": script})
    async with executor(tmp_path, worker) as made:
        await made.submit(request("a"))
        await until(lambda: worker.began)
        cancelled = await made.cancel("a")
        assert put_back
        assert cancelled.event.failure is not None
        assert cancelled.event.failure.code == "cancelled"
        assert "as it was before" in cancelled.event.failure.state


async def test_giving_up_twice_does_not_cut_the_rollback_short(tmp_path: Path) -> None:
    put_back = False

    async def script(_reports: Reports) -> None:
        nonlocal put_back
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.1)
            put_back = True

    worker = ScriptedWorker({"a": script})
    async with executor(tmp_path, worker) as made:
        await made.submit(request("a"))
        await until(lambda: worker.began)
        first = asyncio.create_task(made.cancel("a"))
        await asyncio.sleep(0.01)
        await made.stop(0)
        assert put_back
        await first


async def test_a_bug_that_talks_without_end_fits_into_an_event(tmp_path: Path) -> None:
    worker = ScriptedWorker(
        {
            "a": raising(RuntimeError("x" * 10**6)),
            "b": raising(DumpFailed("x", "y" * 10**6, "z" * 10**6)),
        }
    )
    async with executor(tmp_path, worker) as made:
        for name in ("a", "b"):
            await made.submit(request(name))
            failure = (await made.wait(name)).event.failure
            assert failure is not None
        assert max(len(row.payload) for row in await made.outbox.next()) < 100_000


async def test_what_giving_up_looks_like_is_not_the_reason(tmp_path: Path) -> None:
    async def script(_reports: Reports) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise DumpFailed("x", "killed by SIGTERM") from None

    async with executor(tmp_path, ScriptedWorker({"a": script})) as made:
        await made.submit(request("a"))
        await made.wait("a", {State.PROCESSING})
        failure = (await made.cancel("a")).event.failure
        assert failure is not None
        assert failure.code == "cancelled"


async def test_what_has_ended_stays_as_it_is(tmp_path: Path) -> None:
    async with executor(tmp_path, ScriptedWorker()) as made:
        await made.submit(request("a"))
        await made.wait("a")
        assert (await made.cancel("a")).state is State.READY
        with pytest.raises(ActionNotFound):
            await made.cancel("nobody")


async def test_who_watches_sees_everything_from_now_on(tmp_path: Path) -> None:
    script, gate = held()
    async with executor(tmp_path, ScriptedWorker({"a": script})) as made:
        await made.submit(request("a"))
        await made.wait("a", {State.PROCESSING})
        events = made.subscribe("a")
        assert (await anext(events)).state is State.PROCESSING
        gate.set()
        assert [each.state async for each in events] == [State.READY]
        assert [each.state async for each in made.subscribe("a")] == [State.READY]
        with pytest.raises(ActionNotFound):
            await anext(made.subscribe("nobody"))


async def test_who_watches_slowly_misses_progress_only(tmp_path: Path) -> None:
    said, gate = asyncio.Event(), asyncio.Event()

    async def script(reports: Reports) -> None:
        for number in range(30):
            reports.progress(Update("dump", number))
            await asyncio.sleep(0.05)
        reports.captured(outcome("a"))
        said.set()
        await gate.wait()

    async with executor(tmp_path, ScriptedWorker({"a": script})) as made:
        await made.submit(request("a"))
        events = made.subscribe("a")
        first = await anext(events)
        await said.wait()
        gate.set()
        await made.wait("a")
        rest = [each async for each in events]
        progress = [each.progress for each in rest if each.progress is not None]
        assert len(progress) == 1
        # At most twice a second: 1.5 s have passed.
        assert progress[0].bytes_raw >= 18
        seen = [first.state, *(each.state for each in rest if each.progress is None)]
        assert seen[-3:] == [State.PROCESSING, State.CHECKPOINT_CREATED, State.READY]
        sequences = [first.sequence, *(each.sequence for each in rest)]
        assert sequences == sorted(set(sequences))
        # Nor does the broker hear of progress that was overtaken.
        assert [each.progress for each in await sent(made)] == [None] * 4


async def test_what_waits_is_resumed_at_the_next_start(tmp_path: Path) -> None:
    script, _ = held()
    first = ScriptedWorker({"a": script})
    async with executor(tmp_path, first, concurrency=1) as made:
        await made.submit(request("a"))
        await until(lambda: first.began == ["a"])
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
        await until(lambda: worker.began)
        watching = asyncio.create_task(made.wait("a"))
        await asyncio.sleep(0)
    assert (await watching).state is State.READY


async def test_a_second_hurried_stop_cuts_the_first_short(tmp_path: Path) -> None:
    script, _ = held()
    worker = ScriptedWorker({"a": script})
    made = Executor(settings(tmp_path), worker, Metrics("test"))
    await made.start()
    await made.submit(request("a"))
    await until(lambda: worker.began)
    stopping = asyncio.create_task(made.stop(1000))
    await asyncio.sleep(0.01)
    with pytest.raises(ShuttingDown):
        await made.submit(request("b"))
    await made.stop(0)
    await stopping
    failure = (await made.get("a")).event.failure
    await made.close()
    assert failure is not None
    assert failure.code == "agent_stopping"


async def test_watchers_of_what_is_resumed_later_are_told(tmp_path: Path) -> None:
    script, _ = held()
    worker = ScriptedWorker({"a": script})
    async with executor(tmp_path, worker, concurrency=1) as made:
        await made.submit(request("a"))
        await until(lambda: worker.began)
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
    await made.start()
    await made.submit(request("a"))
    await until(lambda: worker.began)
    await made.submit(request("b"))
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
    away = StoreFailed("read", "s3://b", "unreachable")
    async with executor(tmp_path, ScriptedWorker(left={"a": [away, away, outcome("a")]})) as made:
        assert (await made.wait("b")).state is State.READY
        assert (await made.get("a")).state is State.PROCESSING
        assert (await made.wait("a")).state is State.READY


async def test_what_is_being_settled_is_left_for_the_next_start(tmp_path: Path) -> None:
    await left_open(tmp_path)
    away = StoreFailed("read", "s3://b", "unreachable")
    async with executor(tmp_path, ScriptedWorker(left={"a": [away] * 100})):
        pass
    async with executor(tmp_path, ScriptedWorker(left={"a": [outcome("a")]})) as made:
        assert (await made.wait("a")).state is State.READY


async def test_a_message_that_is_no_action_is_answered(tmp_path: Path) -> None:
    async with executor(tmp_path, ScriptedWorker()) as made:
        await made.refuse("bad", ActionType.CHECKPOINT, InvalidArgument("kind", "no"))
        (event,) = await sent(made)
        assert (event.action_id, event.sequence, event.state) == ("bad", 0, State.ERROR)
        assert event.failure is not None
        assert event.failure.field == "kind"
        await made.submit(request("a"))
        await made.wait("a")
        before = await sent(made)
        await made.refuse("a", ActionType.CHECKPOINT, InvalidArgument("kind", "no"))
        assert await sent(made) == before


async def test_published_waits_for_every_event_of_an_action(tmp_path: Path) -> None:
    async with executor(tmp_path, ScriptedWorker()) as made:
        await made.submit(request("a"))
        await made.wait("a")
        rows = await made.outbox.next()
        waiting = asyncio.create_task(made.outbox.published("a"))
        await made.outbox.confirm(row.id for row in rows[:-1])
        await asyncio.sleep(0.05)
        assert not waiting.done()
        await made.outbox.confirm([rows[-1].id])
        await asyncio.wait_for(waiting, 20)
        await made.outbox.published("a")
        assert await made.outbox.depth() == 0


async def test_whatever_order_they_come_in(tmp_path: Path) -> None:
    """Never two at one target, never more than four, one end each, numbers that count up."""
    chance = random.Random(4)
    worker = ScriptedWorker()
    targets = {}
    for number in range(200):
        name = f"action-{number}"
        targets[name] = f"target-{chance.randrange(20)}"
        worker.scripts[name] = _random_script(chance, name)
        if chance.random() < 0.1:
            worker.refused[name] = PodNotFound("pod x/y")
    async with executor(tmp_path, worker, concurrency=4) as made:
        order = list(targets)
        chance.shuffle(order)
        await asyncio.gather(*(made.submit(request(name, targets[name])) for name in order))
        for name in chance.sample(order, 20):
            await made.cancel(name)
        await asyncio.gather(*(made.wait(name) for name in order))
        assert worker.collisions == []
        assert worker.most == 4
        history: dict[str, list[Event]] = defaultdict(list)
        for event in await sent(made):
            history[event.action_id].append(event)
        assert set(history) == set(targets)
        for events in history.values():
            assert [each.state.is_terminal for each in events].count(True) == 1
            assert events[-1].state.is_terminal
            sequences = [each.sequence for each in events]
            assert sequences == sorted(set(sequences))
        ends = {name: events[-1].state for name, events in history.items()}
        assert {State.READY, State.ERROR} == set(ends.values())


def _random_script(chance: random.Random, name: str) -> Script:
    pause, fails, captured = chance.random() * 0.02, chance.random() < 0.2, chance.random() < 0.7

    async def script(reports: Reports) -> None:
        await asyncio.sleep(pause)
        if captured:
            reports.captured(outcome(name))
        await asyncio.sleep(pause)
        if fails:
            raise DumpFailed(name, "by chance")

    return script
