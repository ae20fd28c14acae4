"""Tasks that never end, and what happens when they do."""

from __future__ import annotations

import asyncio

import pytest

from agent.daemon.eternal import EternalTasks


async def test_one_that_fails_is_a_fault() -> None:
    fault = asyncio.Event()
    tasks = EternalTasks(fault.set)

    async def fail() -> None:
        raise RuntimeError("gone")

    tasks.start("consumer", fail())
    async with asyncio.timeout(20):
        await fault.wait()
    await tasks.stop()


async def test_one_that_returns_is_a_fault_too() -> None:
    fault = asyncio.Event()
    tasks = EternalTasks(fault.set)
    tasks.start("consumer", asyncio.sleep(0))
    async with asyncio.timeout(20):
        await fault.wait()
    await tasks.stop()


async def test_after_their_release_they_may_end(caplog: pytest.LogCaptureFixture) -> None:
    fault, end = asyncio.Event(), asyncio.Event()
    tasks = EternalTasks(fault.set)
    tasks.start("consumer", end.wait())
    await asyncio.sleep(0)
    tasks.release()
    end.set()
    await tasks.stop()
    assert not fault.is_set()
    assert caplog.records == []


async def test_stopping_is_no_fault_and_goes_backwards() -> None:
    fault = asyncio.Event()
    tasks = EternalTasks(fault.set)
    ended: list[str] = []

    async def work(name: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(name)

    tasks.start("first", work("first"))
    tasks.start("second", work("second"))
    await asyncio.sleep(0)
    await tasks.stop()
    assert ended == ["second", "first"]
    assert not fault.is_set()


async def test_what_fails_while_it_is_stopped_does_not_stop_the_others() -> None:
    tasks = EternalTasks(lambda: None)
    ended = asyncio.Event()

    async def orderly() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def disorderly() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise RuntimeError("while stopping")

    tasks.start("orderly", orderly())
    tasks.start("disorderly", disorderly())
    await asyncio.sleep(0)
    await tasks.stop()
    assert ended.is_set()
