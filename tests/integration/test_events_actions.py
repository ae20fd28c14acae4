"""Actions from a real broker to their last event on it; what happens to containers is scripted."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import nats
import pytest
from nats.aio.msg import Msg

from tests.event_agents import (
    HERE,
    agent_on,
    all_answered,
    events_of,
    looking,
    publish,
    request,
    stored,
    waiting_in,
)
from tests.servers.nats import NatsServer
from tests.servers.nats_client import PlainClient
from tests.waiting import eventually_async

STATES = ["initialized", "processing", "checkpoint_created", "ready"]


async def test_states_arrive_in_order(broker: NatsServer, tmp_path: Path) -> None:
    async with agent_on(broker, tmp_path) as agent, looking(broker) as js:
        await agent.is_ready()
        publish(broker, request("a1"))
        events = await events_of(js, "a1", "ready")
        assert [each.state for each in events if each.state in STATES] == STATES
        sequences = [int(each.event["sequence"]) for each in events]
        assert sequences == sorted(set(sequences))
        assert {each.subject for each in events} == {"action-events.test.a1"}
        assert [each.message_id for each in events] == [f"a1.{number}" for number in sequences]
        assert {each.event["node"] for each in events} == {"node-a"}
        await all_answered(js)


async def test_an_action_is_not_acknowledged_before_its_end(
    broker: NatsServer, tmp_path: Path
) -> None:
    wait = {"ack_wait_seconds": 1}
    async with (
        agent_on(broker, tmp_path, open_gate=False, nats=wait) as agent,
        looking(broker) as js,
        signs_of_life(broker) as signs,
    ):
        await agent.is_ready()
        publish(broker, request("a1"))
        await events_of(js, "a1", "checkpoint_created")
        # One in each third of the time that the broker waits for: three times as long as that.
        # A machine that stands still meanwhile has it delivered again, which nobody must notice.
        await eventually_async(lambda: len(signs) >= 9, "nine signs of life")
        info = await js.consumer_info("ACTIONS", "test=node-a")
        assert info.num_ack_pending == 1
        agent.engine.gate.set()
        await all_answered(js)
        assert agent.engine.runs == ["a1"]
        assert [each.state for each in await stored(js)] == STATES


@contextlib.asynccontextmanager
async def signs_of_life(broker: NatsServer) -> AsyncIterator[list[str]]:
    """What an agent tells the broker to be still at work on, each time that it does."""
    signs: list[str] = []

    async def take(message: Msg) -> None:
        if message.data == b"+WPI":
            signs.append(message.subject)

    client = await nats.connect(broker.url)
    try:
        await client.subscribe("$JS.ACK.ACTIONS.test=node-a.>", cb=take)
        await client.flush()
        yield signs
    finally:
        await client.close()


async def test_a_broker_that_is_killed_in_mid_action_loses_nothing(
    broker: NatsServer, tmp_path: Path
) -> None:
    wait = {"ack_wait_seconds": 1}
    async with (
        agent_on(broker, tmp_path, open_gate=False, nats=wait) as agent,
        looking(broker) as js,
    ):
        await agent.is_ready()
        publish(broker, request("a1"))
        await events_of(js, "a1", "checkpoint_created")
        broker.kill()
        agent.engine.gate.set()
        # It ends, whether or not there is a broker.
        action = await agent.executor.wait("a1")
        assert action.state == "ready"
        await eventually_async(lambda: not agent.events.ready, "the broker missed")
        broker.start()
        await events_of(js, "a1", "ready")
        await all_answered(js)
        events = await stored(js)
        assert [each.state for each in events] == STATES
        assert set(Counter(each.message_id for each in events).values()) == {1}
        assert agent.engine.runs == ["a1"]


async def test_a_broker_that_says_nothing_for_a_while_loses_nothing(
    broker: NatsServer, tmp_path: Path
) -> None:
    async with agent_on(broker, tmp_path) as agent, looking(broker) as js:
        await agent.is_ready()
        with PlainClient(broker.port) as client:
            client.publish(f"{HERE}.checkpoint", request("a1"))
            broker.pause()
        await asyncio.sleep(1)
        broker.resume()
        events = await events_of(js, "a1", "ready")
        assert [each.state for each in events] == STATES
        await all_answered(js)


async def test_an_action_published_before_the_agent_came(
    broker: NatsServer, tmp_path: Path
) -> None:
    async with looking(broker) as js:
        async with agent_on(broker, tmp_path) as first:
            await first.is_ready()
        publish(broker, request("a1"))
        async with agent_on(broker, tmp_path):
            await events_of(js, "a1", "ready")
            await all_answered(js)


async def test_a_broker_away_at_the_start_is_waited_for(broker: NatsServer, tmp_path: Path) -> None:
    broker.kill()
    async with agent_on(broker, tmp_path) as agent:
        await eventually_async(lambda: "Connect call failed" in agent.events.problem, "no broker")
        broker.start()
        await agent.is_ready()
        publish(broker, request("a1"))
        async with looking(broker) as js:
            await events_of(js, "a1", "ready")


async def test_an_action_asked_for_again_is_answered_and_not_done_again(
    broker: NatsServer, tmp_path: Path
) -> None:
    async with agent_on(broker, tmp_path) as agent, looking(broker) as js:
        await agent.is_ready()
        publish(broker, request("a1"))
        first = (await events_of(js, "a1", "ready"))[-1]
        publish(broker, request("a1"))
        again = (await events_of(js, "a1", "ready", times=2))[-1]
        assert again.event == first.event
        await all_answered(js)
        assert agent.engine.runs == ["a1"]


async def test_an_agent_that_died_before_the_acknowledgement_answers_and_does_nothing_again(
    broker: NatsServer, tmp_path: Path
) -> None:
    wait = {"ack_wait_seconds": 1}
    async with looking(broker) as js:
        async with agent_on(broker, tmp_path, open_gate=False, nats=wait) as agent:
            await agent.is_ready()
            publish(broker, request("a1"))
            await events_of(js, "a1", "checkpoint_created")
            await agent.die()
            agent.engine.gate.set()
            await agent.executor.wait("a1")
        assert await waiting_in(js) == 1
        async with agent_on(broker, tmp_path, nats=wait) as agent:
            await events_of(js, "a1", "ready")
            await all_answered(js)
            assert agent.engine.runs == []
        assert [each.state for each in await stored(js)] == STATES


async def test_what_was_delivered_too_often_is_answered_with_an_error(
    broker: NatsServer, tmp_path: Path
) -> None:
    async with looking(broker) as js:
        async with agent_on(broker, tmp_path, nats={"max_deliver": 2}) as agent:
            await agent.is_ready()
        publish(broker, request("a1"))
        # An agent that takes it and dies before it has written anything down.
        pull = await js.pull_subscribe_bind("test=node-a", "ACTIONS")
        (message,) = await pull.fetch(1)
        await message.nak()
        async with agent_on(broker, tmp_path) as agent:
            (event,) = await events_of(js, "a1", "error")
            assert event.event["failure"]["code"] == "redelivered_too_often"
            await all_answered(js)
            assert agent.engine.runs == []


async def test_of_two_nodes_only_the_owner_answers(broker: NatsServer, tmp_path: Path) -> None:
    async with (
        agent_on(broker, tmp_path) as one,
        agent_on(broker, tmp_path, "node-b") as other,
        looking(broker) as js,
    ):
        await one.is_ready()
        await other.is_ready()
        publish(broker, request("a1"), "actions.test.node-b.checkpoint")
        events = await events_of(js, "a1", "ready")
        assert {each.event["node"] for each in events} == {"node-b"}
        assert (one.engine.runs, other.engine.runs) == ([], ["a1"])


def cancel(broker: NatsServer, action_id: str) -> None:
    publish(broker, json.dumps({"actionId": action_id, "cancel": {}}).encode(), f"{HERE}.cancel")


async def test_a_cancel_overtakes_a_backlog(broker: NatsServer, tmp_path: Path) -> None:
    # One at a time, and one more that waits: all others stay in the stream.
    small = {"concurrency": 1, "queue_limit": 2}
    async with (
        agent_on(broker, tmp_path, open_gate=False, checkpoint=small) as agent,
        looking(broker) as js,
    ):
        await agent.is_ready()
        with PlainClient(broker.port) as client:
            for number in range(50):
                client.publish(f"{HERE}.checkpoint", request(f"a{number}"))
        await events_of(js, "a0", "checkpoint_created")
        cancel(broker, "a0")
        cancel(broker, "a49")
        ended = await events_of(js, "a0", "error")
        assert ended[-1].event["failure"]["code"] == "cancelled"
        assert len(agent.engine.runs) <= 3
        agent.engine.gate.set()
        # It was still in the stream when it was given up.
        (event,) = await events_of(js, "a49", "error")
        assert event.event["failure"]["code"] == "cancelled"
        await all_answered(js)
        assert "a49" not in agent.engine.runs


async def test_a_cancel_of_what_nobody_knows_is_acknowledged(
    broker: NatsServer, tmp_path: Path
) -> None:
    async with agent_on(broker, tmp_path) as agent, looking(broker) as js:
        await agent.is_ready()
        cancel(broker, "never")
        await all_answered(js)
        assert await stored(js) == []


@pytest.mark.slow
async def test_a_thousand_actions_for_unknown_pods(broker: NatsServer, tmp_path: Path) -> None:
    async with agent_on(broker, tmp_path) as agent, looking(broker) as js:
        await agent.is_ready()
        with PlainClient(broker.port) as client:
            for number in range(1000):
                client.send(f"{HERE}.checkpoint", request(f"a{number}", f"unknown-{number}"))
            client.flush()
        await all_answered(js)
        events = await stored(js)
        last = {
            each.event["actionId"]: each.event["failure"]["code"]
            for each in events[::-1]
            if each.state == "error"
        }
        assert last == {f"a{number}": "pod_not_found" for number in range(1000)}
