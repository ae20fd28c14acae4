"""Actions from their acceptance to their end: in order, in turn, and each of them once."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from pathlib import Path

import pytest

from agent.actions.turns import ASIDE_PER_SLOT
from agent.actions.worker import Reports
from agent.errors import (
    ActionNotFound,
    AlreadyExists,
    DumpFailed,
    PodNotFound,
    QueueFull,
)
from agent.messages.model import Event, State
from agent.report import Update
from tests.fakes.scripted_worker import Script, ScriptedWorker, outcome, request
from tests.scripted_executors import executor, held, sent, states
from tests.waiting import eventually_async


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


async def test_so_many_asynchronous_ones_are_stored_at_a_time(tmp_path: Path) -> None:
    """However many are captured: each of them keeps memory until it is stored."""
    stored = asyncio.Event()

    async def script(reports: Reports) -> None:
        reports.captured(outcome("any"))
        await stored.wait()

    names = [f"a-{number}" for number in range(ASIDE_PER_SLOT + 3)]
    worker = ScriptedWorker(dict.fromkeys(names, script), asynchronous=set(names))
    async with executor(tmp_path, worker, concurrency=1) as made:
        for name in names:
            await made.submit(request(name))
        # And one that has its slot still.
        await eventually_async(lambda: len(worker.began) == ASIDE_PER_SLOT + 1, "all but one")
        for name in worker.began:
            await made.wait(name, {State.CHECKPOINT_CREATED})
        assert made.queued == 2
        assert worker.began == names[: ASIDE_PER_SLOT + 1]
        stored.set()
        for name in names:
            assert (await made.wait(name)).state is State.READY


async def test_what_is_urgent_is_never_too_much_and_begins_first(tmp_path: Path) -> None:
    script, gate = held()
    worker = ScriptedWorker({"a": script})
    async with executor(tmp_path, worker, concurrency=1, queue_limit=1) as made:
        await made.submit(request("a"))
        await eventually_async(lambda: worker.began == ["a"])
        await made.submit(request("b"))
        await made.submit(request("now"), urgent=True)
        # Both have to have asked for their turns.
        await eventually_async(lambda: len(made._means.turns._waiting) == 2)
        gate.set()
        await made.wait("b")
        assert worker.began == ["a", "now", "b"]


async def test_too_many_are_refused_and_not_recorded(tmp_path: Path) -> None:
    script, gate = held()
    worker = ScriptedWorker({"a": script})
    async with executor(tmp_path, worker, concurrency=1, queue_limit=2) as made:
        await made.submit(request("a"))
        await eventually_async(lambda: worker.began == ["a"])
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
