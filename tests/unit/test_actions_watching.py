"""Actions whose work others do: they take no slot, and outlive the agent that tells of them."""

from __future__ import annotations

import asyncio
from pathlib import Path

from agent.messages.model import State
from tests.fakes.scripted_worker import ScriptedWorker, outcome, request
from tests.scripted_executors import executor, held, states
from tests.waiting import eventually_async


async def test_it_waits_for_no_slot(tmp_path: Path) -> None:
    busy, go = held()
    watch, end = held()
    worker = ScriptedWorker({"busy": busy, "watch": watch}, watching={"watch"})
    async with executor(tmp_path, worker, concurrency=1) as made:
        await made.submit(request("busy"))
        await eventually_async(lambda: worker.began == ["busy"])
        await made.submit(request("watch"))
        await eventually_async(lambda: worker.began == ["busy", "watch"])
        assert await states(made, "watch") == [State.INITIALIZED, State.PROCESSING]
        end.set()
        assert (await made.wait("watch")).state is State.READY
        go.set()
        assert (await made.wait("busy")).state is State.READY


async def test_a_stop_leaves_it_to_the_next_start(tmp_path: Path) -> None:
    watch, _ = held()
    worker = ScriptedWorker({"watch": watch}, watching={"watch"})
    async with executor(tmp_path, worker, grace=60) as made:
        await made.submit(request("watch"))
        await eventually_async(lambda: worker.began)
    async with executor(tmp_path, ScriptedWorker(left={"watch": [outcome("watch")]})) as made:
        assert (await made.wait("watch")).state is State.READY
        assert await states(made, "watch") == [State.INITIALIZED, State.PROCESSING, State.READY]


async def test_a_checkpoint_of_the_same_target_waits_for_it(tmp_path: Path) -> None:
    watch, end = held()
    worker = ScriptedWorker({"watch": watch}, watching={"watch"})
    async with executor(tmp_path, worker) as made:
        await made.submit(request("watch", "web"))
        await eventually_async(lambda: worker.began)
        await made.submit(request("checkpoint", "web"))
        await asyncio.sleep(0.05)
        assert worker.began == ["watch"]
        end.set()
        assert (await made.wait("checkpoint")).state is State.READY
    assert worker.collisions == []
