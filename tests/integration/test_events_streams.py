"""Streams that are missing, an operator's own, or full; and what an agent has to be allowed."""

from __future__ import annotations

import asyncio
from pathlib import Path

from nats.js import api

from agent.events.streams import MAX_CONSUMERS
from tests.event_agents import (
    HERE,
    agent_on,
    all_answered,
    events_of,
    looking,
    publish,
    request,
    waiting_in,
)
from tests.servers.nats import NatsServer, nats_server
from tests.waiting import eventually_async

STATES = ["initialized", "processing", "checkpoint_created", "ready"]


async def test_streams_that_vanish_are_made_again(broker: NatsServer, tmp_path: Path) -> None:
    async with agent_on(broker, tmp_path) as agent, looking(broker) as js:
        await agent.is_ready()
        # Noticed with the next event, and this one at once.
        await js.delete_stream("ACTION_EVENTS")
        await js.delete_stream("ACTIONS")

        async def both() -> bool:
            return await waiting_in(js) >= 0 and await waiting_in(js, "ACTION_EVENTS") >= 0

        await eventually_async(both, "both streams")
        await agent.is_ready()
        publish(broker, request("a1"))
        await events_of(js, "a1", "ready")


async def test_a_stream_that_is_missed_by_the_next_event_is_made_again(
    broker: NatsServer, tmp_path: Path
) -> None:
    async with agent_on(broker, tmp_path) as agent, looking(broker) as js:
        await agent.is_ready()
        await js.delete_stream("ACTION_EVENTS")
        publish(broker, request("a1"))
        assert [each.state for each in await events_of(js, "a1", "ready")] == STATES
        await all_answered(js)


async def test_there_is_room_for_thousands_of_nodes(broker: NatsServer, tmp_path: Path) -> None:
    async with agent_on(broker, tmp_path) as agent, looking(broker) as js:
        await agent.is_ready()
        config = (await js.stream_info("ACTIONS")).config
    assert config.max_consumers == MAX_CONSUMERS


async def test_an_account_that_may_have_fewer_has_as_many_as_it_may(tmp_path: Path) -> None:
    user = {"user": "agent", "password": "secret"}
    limits = {"max_mem": 64 << 20, "max_file": 64 << 20, "max_consumers": 10}
    options = {"accounts": {"small": {"users": [user], "jetstream": limits}}}
    with nats_server(tmp_path, options=options) as broker:
        async with agent_on(broker, tmp_path, nats=dict(user)) as agent:
            await agent.is_ready()
            async with looking(broker, **user) as js:
                assert (await js.stream_info("ACTIONS")).state.consumer_count == 2


async def test_a_stream_of_an_operator_is_used_as_it_is(broker: NatsServer, tmp_path: Path) -> None:
    async with looking(broker) as js:
        before = await js.add_stream(name="ACTIONS", subjects=["actions.test.>"], max_msgs=500)
        async with agent_on(broker, tmp_path) as agent:
            await agent.is_ready()
            publish(broker, request("a1"))
            await events_of(js, "a1", "ready")
        assert (await js.stream_info("ACTIONS")).config == before.config


async def test_an_action_is_not_acknowledged_before_its_last_event_is_stored(
    broker: NatsServer, tmp_path: Path
) -> None:
    async with looking(broker) as js:
        full = api.StreamConfig(
            name="ACTION_EVENTS",
            subjects=["action-events.>"],
            max_msgs=2,
            discard=api.DiscardPolicy.NEW,
        )
        await js.add_stream(full)
        async with agent_on(broker, tmp_path) as agent:
            await agent.is_ready()
            publish(broker, request("a1"))
            await events_of(js, "a1", "processing")
            await agent.executor.wait("a1")
            # The agent tries twice a second.
            await asyncio.sleep(1)
            assert await waiting_in(js) == 1
            await js.update_stream(full.evolve(max_msgs=-1))
            assert [each.state for each in await events_of(js, "a1", "ready")] == STATES
            await all_answered(js)


async def test_a_stream_for_other_subjects_is_complained_about(
    broker: NatsServer, tmp_path: Path
) -> None:
    async with looking(broker) as js:
        await js.add_stream(name="ACTIONS", subjects=["actions.prod.>"])
        async with agent_on(broker, tmp_path) as agent:
            await eventually_async(
                lambda: "does not take subject actions.test.node-a" in agent.events.problem,
                "a complaint",
            )
            assert not agent.events.ready


DOCUMENTED = Path(__file__).parents[2] / "proto" / "EVENTS.md"


async def test_the_documented_permissions_are_enough(tmp_path: Path) -> None:
    block = DOCUMENTED.read_text().partition("    publish: ")[2].partition("\n\n")[0]
    block = block.replace("<cluster>", "test").replace("<node>", "node-a")
    publishes, _, subscribes = block.partition("subscribe:")
    permissions = {"publish": publishes.split(), "subscribe": subscribes.split()}
    agent_user = {"user": "agent", "password": "a", "permissions": permissions}
    authorization = {"users": [agent_user, {"user": "test", "password": "t"}]}
    file = tmp_path / "password"
    file.write_text("a")
    own = {"user": "agent", "password_file": str(file)}
    with nats_server(tmp_path, authorization=authorization) as broker:
        async with (
            agent_on(broker, tmp_path, nats=own) as agent,
            looking(broker, "test", "t") as js,
        ):
            await agent.is_ready()
            await js.publish(f"{HERE}.checkpoint", request("a1"))
            await events_of(js, "a1", "ready")
            await all_answered(js)
        assert " Violation - " not in broker.log
