"""A broker that is away, silent, back again, another's, or strict."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from pathlib import Path

import pytest

from agent.errors import BrokerFailed
from agent.events import Control
from agent.events.control import CONFIRM_SECONDS
from agent.targets import PodRef
from tests.controls import START, checkpoint, control_on, controlling, is_ready, read_all
from tests.event_agents import agent_on, looking, waiting_in
from tests.servers.nats import NatsServer
from tests.waiting import eventually_async


async def fails(work: Awaitable[object], within: float) -> str:
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(BrokerFailed) as caught:
        await work
    assert loop.time() - began < within
    return str(caught.value)


async def test_a_broker_that_is_away_is_not_waited_for(broker: NatsServer) -> None:
    broker.kill()
    async with controlling(broker) as control:
        await eventually_async(lambda: "Connect call failed" in control.problem, "a problem")
        assert not control.ready
        for work in (
            control.hand_over("test", "node-a", checkpoint("a1")),
            control.cancel("test", "node-a", "a1"),
            control.read(START, 10, 30.0),
        ):
            assert "Connect call failed" in await fails(work, within=1)


async def test_a_broker_that_goes_ends_what_waits_for_it(broker: NatsServer) -> None:
    async with control_on(broker) as control:
        reading = asyncio.ensure_future(control.read(START, 10, 60.0))
        await asyncio.sleep(0.1)
        broker.kill()
        await fails(reading, within=5)
        await eventually_async(lambda: not control.ready, "the broker missed")


async def test_a_broker_that_is_back_is_used_again(broker: NatsServer, tmp_path: Path) -> None:
    async with (
        control_on(broker) as control,
        agent_on(broker, tmp_path),
        agent_on(broker, tmp_path, "node-b"),
        looking(broker) as js,
    ):
        await eventually_async(lambda: names(control) == ["node-a", "node-b"], "both nodes")
        before = steady_since(control)
        broker.kill()
        await eventually_async(lambda: not control.ready, "the broker missed")
        assert steady_since(control) == 0
        assert names(control) == ["node-a", "node-b"]
        broker.start()
        await is_ready(control)
        assert steady_since(control) > before > 0
        await eventually_async(lambda: names(control) == ["node-a", "node-b"], "both nodes again")
        await control.hand_over("test", "node-c", checkpoint("a1"))
        assert await waiting_in(js) == 1
        await read_all(control)


async def test_a_node_outlasts_a_broker_that_is_away_for_longer_than_its_lease(
    broker: NatsServer, tmp_path: Path
) -> None:
    async with (
        control_on(broker, lease_seconds=3) as control,
        agent_on(broker, tmp_path, nats={"lease_seconds": 3}),
    ):
        await eventually_async(lambda: names(control) == ["node-a"], "the node")
        broker.kill()
        await asyncio.sleep(4)
        assert not control.ready
        assert names(control) == ["node-a"]


async def test_a_broker_that_hangs_is_given_up_in_time(broker: NatsServer) -> None:
    async with control_on(broker) as control:
        broker.pause()
        reading = asyncio.ensure_future(control.read(START, 10, 1.0))
        work = control.hand_over("test", "node-a", checkpoint("a1"))
        assert "does not confirm" in await fails(work, within=CONFIRM_SECONDS + 3)
        await fails(reading, within=20)
        await eventually_async(lambda: not control.ready, "the silence noticed")
        broker.resume()
        await is_ready(control)
        # It may have been stored; the same again changes nothing.
        await control.hand_over("test", "node-a", checkpoint("a1"))
        async with looking(broker) as js:
            assert await waiting_in(js) == 1


async def test_streams_that_do_not_take_all_nodes_are_complained_about(broker: NatsServer) -> None:
    async with looking(broker) as js:
        await js.add_stream(name="ACTIONS", subjects=["actions.prod.>"])
        async with controlling(broker) as control:
            await eventually_async(
                lambda: "does not take subject actions.*.*.checkpoint" in control.problem,
                "a complaint",
            )
            assert not control.ready


async def test_a_bucket_that_vanishes_is_made_again(broker: NatsServer, tmp_path: Path) -> None:
    async with control_on(broker) as control, looking(broker) as js:
        before = steady_since(control)
        await js.delete_key_value("checkpoint-inventory")
        await eventually_async(lambda: steady_since(control) != before, "the loss noticed")
        await is_ready(control)
        async with agent_on(broker, tmp_path):
            await eventually_async(lambda: names(control) == ["node-a"], "the node")


def steady_since(control: Control) -> float:
    """0 while it is not."""
    return control.nodes.steady_since or 0.0


def names(control: Control) -> list[str]:
    found = control.nodes.live()
    assert all(control.nodes.get("test", info.node) is info for info in found)
    assert control.nodes.find(PodRef(uid="nobody"), None) == []
    return [info.node for info in found]
