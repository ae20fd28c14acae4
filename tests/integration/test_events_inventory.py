"""The node's entry in the inventory, as others find it in a real broker's bucket."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from nats.js import JetStreamContext
from nats.js.errors import BucketNotFoundError, KeyNotFoundError

from agent.pb.checkpoint_agent.v1 import actions_pb2, inventory_pb2
from tests.event_agents import agent_on, looking
from tests.servers.nats import NatsServer
from tests.waiting import eventually_async

KEY = "test.node-a"

# A lease of an hour: no renewal is due before a test has failed.
NEVER_RENEWED = {"lease_seconds": 3600}


async def entry(js: JetStreamContext) -> dict[str, Any] | None:
    try:
        found = await (await js.key_value("checkpoint-inventory")).get(KEY)
    except (BucketNotFoundError, KeyNotFoundError):
        return None
    return dict(json.loads(found.value or b"{}"))


async def writes(js: JetStreamContext) -> int:
    """How often the entry was written: on a machine that stands still it is forgotten meanwhile."""
    return (await js.stream_info("KV_checkpoint-inventory")).state.last_seq


async def is_there(js: JetStreamContext) -> bool:
    return await entry(js) is not None


async def is_gone(js: JetStreamContext) -> bool:
    return not await is_there(js)


async def test_a_node_is_there_until_it_stops(broker: NatsServer, tmp_path: Path) -> None:
    async with looking(broker) as js:
        async with agent_on(broker, tmp_path):
            await eventually_async(lambda: is_there(js), "the entry")
            assert await entry(js) == {"cluster": "test", "node": "node-a"}
        # At once: the lease is 30 seconds.
        assert await is_gone(js)


async def test_an_entry_is_renewed_and_goes_when_nobody_renews_it(
    broker: NatsServer, tmp_path: Path
) -> None:
    lease = {"lease_seconds": 3}
    async with looking(broker) as js, agent_on(broker, tmp_path, nats=lease) as agent:
        await eventually_async(lambda: is_there(js), "the entry")
        first = await writes(js)

        async def renewed() -> bool:
            return await writes(js) >= first + 4

        # Longer than the lease, of which each is a third.
        await eventually_async(renewed, "four renewals")
        await eventually_async(lambda: is_there(js), "the entry")
        await agent.die()
        await eventually_async(lambda: is_gone(js), "the lease's end")


async def test_a_pod_that_comes_is_there_long_before_the_next_renewal(
    broker: NatsServer, tmp_path: Path
) -> None:
    async with looking(broker) as js, agent_on(broker, tmp_path, nats=NEVER_RENEWED) as agent:
        await eventually_async(lambda: is_there(js), "the entry")
        ref = actions_pb2.PodRef(uid="u1", namespace="default", name="web")
        agent.pods.append(inventory_pb2.Pod(ref=ref))
        # As runc does when a container is made.
        container = agent.settings.pods.runc_roots[0] / "container"
        await asyncio.to_thread(container.mkdir)

        async def listed() -> bool:
            return "pods" in (await entry(js) or {})

        await eventually_async(listed, "the pod")


async def test_a_broker_that_was_away_has_the_entry_again(
    broker: NatsServer, tmp_path: Path
) -> None:
    async with looking(broker) as js, agent_on(broker, tmp_path, nats=NEVER_RENEWED) as agent:
        await eventually_async(lambda: is_there(js), "the entry")
        first = await writes(js)
        broker.kill()
        await eventually_async(lambda: not agent.events.ready, "the broker missed")
        broker.start()

        async def written_again() -> bool:
            return await writes(js) > first

        await eventually_async(written_again, "the entry again")


async def test_a_bucket_of_an_operator_is_used(broker: NatsServer, tmp_path: Path) -> None:
    async with looking(broker) as js:
        await js.create_key_value(bucket="checkpoint-inventory", history=5, ttl=60)
        async with agent_on(broker, tmp_path):
            await eventually_async(lambda: is_there(js), "the entry")
        status = await (await js.key_value("checkpoint-inventory")).status()
        assert (status.history, status.ttl) == (5, 60)
