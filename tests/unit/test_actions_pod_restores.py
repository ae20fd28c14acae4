"""Pods that come back container by container, and whoever waits for all of them."""

from __future__ import annotations

import asyncio

import pytest

from agent.actions import Expected, PodRestores
from agent.errors import RestoreFailed
from agent.messages.model import RestoredMember

APP, SIDE = RestoredMember("app", "c-1", 11), RestoredMember("side", "c-2", 12)
TWO = Expected("file:///store/x", frozenset({"app", "side"}), 100, 40)


async def _settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_it_is_over_when_the_last_one_is_back() -> None:
    pods = PodRestores()
    waiting = asyncio.create_task(pods.outcome("u", TWO.path))
    await _settle()
    pods.expect("u", TWO)
    pods.restored("u", SIDE, {"restore": 0.25})
    await _settle()
    assert not waiting.done()
    pods.restored("other", APP, {})
    await _settle()
    assert not waiting.done()
    pods.restored("u", APP, {"restore": 0.5, "unpack": 0.125})
    outcome = await waiting
    assert (outcome.members, outcome.path) == ((APP, SIDE), TWO.path)
    assert (outcome.bytes_raw, outcome.bytes_stored) == (100, 40)
    assert {"restore": 0.75, "unpack": 0.125}.items() <= outcome.phases.items()


async def test_what_happened_before_anybody_waited_counts() -> None:
    """As after a restart, when the records are read before the journal is."""
    pods = PodRestores()
    pods.restored("u", APP, {})
    pods.expect("u", Expected(TWO.path, frozenset({"app"})))
    assert (await pods.outcome("u", TWO.path)).members == (APP,)


async def test_the_first_failure_is_what_is_told() -> None:
    pods = PodRestores()
    pods.expect("u", TWO)
    pods.restored("u", APP, {})
    pods.failed("u", RestoreFailed("side", "no such member"))
    pods.failed("u", RestoreFailed("side", "cold, as the others"))
    with pytest.raises(RestoreFailed, match="no such member"):
        await pods.outcome("u", TWO.path)


async def test_a_container_that_nobody_creates_is_named() -> None:
    pods = PodRestores(patience_seconds=0.05)
    pods.expect("u", TWO)
    pods.restored("u", APP, {})
    with pytest.raises(RestoreFailed, match="did not create side"):
        await pods.outcome("u", TWO.path)


async def test_two_who_wait_in_vain_hear_the_same() -> None:
    """As when an action of an earlier agent is settled beside a new one of the same pod."""
    pods = PodRestores(patience_seconds=0.05)
    waiting = (pods.outcome("u", TWO.path), pods.outcome("u", TWO.path))
    found = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(each) for each in found] == [RestoreFailed, RestoreFailed]


async def test_who_is_interrupted_may_come_again() -> None:
    pods = PodRestores()
    pods.expect("u", TWO)
    pods.restored("u", APP, {})
    waiting = asyncio.create_task(pods.outcome("u", TWO.path))
    await _settle()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    pods.restored("u", SIDE, {})
    assert (await pods.outcome("u", TWO.path)).members == (APP, SIDE)
