"""Events on their way to a broker that comes and goes, and the daemon's last ones."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from pathlib import Path

from nats.js import JetStreamContext

from agent.messages.requests import from_json, request_from
from agent.pb.checkpoint_agent.v1 import actions_pb2 as pb
from tests.event_agents import Agent, agent_on, events_of, looking, request, stored
from tests.servers.nats import NatsServer
from tests.servers.nats_client import PlainClient
from tests.waiting import PATIENCE, eventually_async

STATES = ["initialized", "processing", "checkpoint_created", "ready"]
ACTIONS = 60


async def submit(agent: Agent, action_id: str, uid: str) -> None:
    """Give the executor an action as the gRPC service does."""
    message = from_json(request(action_id, uid), pb.ActionRequest())
    await agent.executor.submit(request_from(message))


async def states(js: JetStreamContext) -> dict[str, list[str]]:
    found = defaultdict(list)
    for each in await stored(js):
        found[each.event["actionId"]].append(each.state)
    return found


async def test_events_are_whole_and_in_order_whatever_the_broker_does(
    broker: NatsServer, tmp_path: Path
) -> None:
    async with agent_on(broker, tmp_path) as agent, looking(broker) as js:
        await agent.is_ready()
        for number in range(ACTIONS):
            await submit(agent, f"a{number}", f"pod-{number}")
            if number % 20 == 10:
                broker.kill()
                broker.start()

        async def drained() -> bool:
            return await agent.executor.outbox.depth() == 0

        await eventually_async(drained, "an empty outbox")
        assert await states(js) == {f"a{number}": STATES for number in range(ACTIONS)}
        ids = [each.message_id for each in await stored(js)]
        assert len(ids) == len(set(ids))


async def test_actions_go_on_without_a_broker_and_are_told_of_later(
    broker: NatsServer, tmp_path: Path
) -> None:
    broker.kill()
    async with agent_on(broker, tmp_path) as agent:
        await submit(agent, "a1", "pod-1")
        assert (await agent.executor.wait("a1")).state == "ready"
    # Not even the agent that did it has to be there any more.
    broker.start()
    async with agent_on(broker, tmp_path), looking(broker) as js:
        assert [each.state for each in await events_of(js, "a1", "ready")] == STATES


async def test_what_a_stopping_agent_rolls_back_is_told_and_acknowledged(
    broker: NatsServer, tmp_path: Path
) -> None:
    async with looking(broker) as js:
        async with agent_on(broker, tmp_path, open_gate=False) as agent:
            await agent.is_ready()
            with PlainClient(broker.port) as client:
                client.publish("actions.test.node-a.checkpoint", request("a1"))
            await events_of(js, "a1", "checkpoint_created")
            await agent.events.pause()
            # Nobody takes this one any more.
            with PlainClient(broker.port) as client:
                client.publish("actions.test.node-a.checkpoint", request("a2"))
            await agent.executor.stop(0)
            await agent.events.stop(5)
            await agent.task
        left = await js.consumer_info("ACTIONS", "test=node-a")
        assert (left.num_ack_pending, left.num_pending) == (0, 1)
        events = await stored(js)
        assert [each.state for each in events] == [*STATES[:-1], "error"]
        assert events[-1].event["failure"]["code"] == "agent_stopping"


async def test_a_broker_that_is_away_does_not_hold_up_the_end(
    broker: NatsServer, tmp_path: Path
) -> None:
    async with agent_on(broker, tmp_path) as agent:
        await agent.is_ready()
        broker.kill()
        await submit(agent, "a1", "pod-1")
        await agent.executor.wait("a1")
        # It would be away for ever.
        async with asyncio.timeout(PATIENCE):
            await agent.events.pause()
            await agent.executor.stop(0)
            await agent.events.stop(0.5)
        assert await agent.executor.outbox.depth() > 0
