"""The parts of a session end together, whatever they do about it."""

from __future__ import annotations

import asyncio

import pytest

from agent.events.connection import until_one_ends


async def test_the_first_end_ends_the_others() -> None:
    ended: list[str] = []

    async def other() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("other")

    await until_one_ends(asyncio.sleep(0), other())
    assert ended == ["other"]


async def test_what_one_raised_is_raised() -> None:
    async def broken() -> None:
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await until_one_ends(broken(), asyncio.Event().wait())


async def test_a_part_that_forgets_a_cancellation_is_ended_all_the_same() -> None:
    forgotten: list[str] = []

    async def forgetful() -> None:
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if forgotten:
                    raise
                forgotten.append("once")

    async with asyncio.timeout(20):
        await until_one_ends(asyncio.sleep(0), forgetful())
    assert forgotten == ["once"]
