"""Actions that the Actions API's side hands over, as a real broker and real agents get them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from nats.js import JetStreamContext, api

from agent.errors import BrokerFailed
from agent.messages.model import ActionRequest, CheckpointSpec, RestoreSpec, State
from agent.messages.requests import from_json, request_from
from agent.pb.checkpoint_agent.v1 import actions_pb2 as pb
from agent.targets import Kind, PodRef
from tests.controls import START, checkpoint, control_on, is_ready, read_all
from tests.event_agents import agent_on, looking, waiting_in
from tests.servers.nats import NatsServer, nats_server
from tests.waiting import eventually_async


async def message(js: JetStreamContext, sequence: int) -> tuple[str, bytes]:
    found = await js.get_msg("ACTIONS", sequence)
    return str(found.subject), found.data or b""


@pytest.mark.parametrize(
    ("request_", "kind"),
    [
        (
            ActionRequest(
                "a1", CheckpointSpec(PodRef("u1", "default", "web"), Kind.ROOTFS, "heartbeat")
            ),
            "checkpoint",
        ),
        (ActionRequest("a1", RestoreSpec("s3://b/web", "nodeTermination")), "restore"),
    ],
)
async def test_a_request_arrives_as_it_was(
    broker: NatsServer, request_: ActionRequest, kind: str
) -> None:
    async with control_on(broker) as control, looking(broker) as js:
        await control.hand_over("test", "node-a", request_)
        subject, data = await message(js, 1)
        assert subject == f"actions.test.node-a.{kind}"
        assert request_from(from_json(data, pb.ActionRequest())) == request_


async def test_the_same_request_is_stored_once(broker: NatsServer) -> None:
    async with control_on(broker) as control, looking(broker) as js:
        await control.hand_over("test", "node-a", checkpoint("a1"))
        await control.hand_over("test", "node-a", checkpoint("a1"))
        await control.hand_over("test", "node-a", checkpoint("a2"))
        assert await waiting_in(js) == 2


async def test_a_cancel_arrives_beside_its_action(broker: NatsServer) -> None:
    async with control_on(broker) as control, looking(broker) as js:
        await control.hand_over("test", "node-a", checkpoint("a1"))
        await control.cancel("test", "node-a", "a1")
        await control.cancel("test", "node-a", "a1")
        assert await waiting_in(js) == 2
        subject, data = await message(js, 2)
        assert subject == "actions.test.node-a.cancel"
        assert json.loads(data) == {"actionId": "a1"}


async def test_an_agent_does_it_and_answers(broker: NatsServer, tmp_path: Path) -> None:
    async with control_on(broker) as control, agent_on(broker, tmp_path):
        await control.hand_over("test", "node-a", checkpoint("a1"))
        states: list[State] = []
        position = START
        while State.READY not in states:
            batch = await control.read(position, 100, 10.0)
            position = batch.position
            for stored in batch.events:
                assert stored.event is not None
                assert (stored.cluster, stored.node) == ("test", "node-a")
                assert stored.event.action_id == "a1"
                states.append(stored.event.state)
        assert states == [
            State.INITIALIZED,
            State.PROCESSING,
            State.CHECKPOINT_CREATED,
            State.READY,
        ]


async def test_an_agent_gives_it_up(broker: NatsServer, tmp_path: Path) -> None:
    async with (
        control_on(broker) as control,
        agent_on(broker, tmp_path, open_gate=False) as agent,
    ):
        await control.hand_over("test", "node-a", checkpoint("a1"))
        await eventually_async(lambda: agent.engine.runs, "the action under way")
        await control.cancel("test", "node-a", "a1")

        async def cancelled() -> bool:
            last = [stored.event for stored in (await read_all(control)).events][-1]
            return (
                last is not None and last.failure is not None and last.failure.code == "cancelled"
            )

        await eventually_async(cancelled, "the action cancelled")


@pytest.mark.parametrize(
    ("cluster", "node"),
    [("test", "a.b"), ("test", "*"), (">", "node-a"), ("test", ""), ("te st", "a"), ("t", "a\r\n")],
)
async def test_what_is_no_node_is_sent_nothing(broker: NatsServer, cluster: str, node: str) -> None:
    async with control_on(broker) as control, looking(broker) as js:
        with pytest.raises(BrokerFailed, match="cannot be parts of a subject"):
            await control.hand_over(cluster, node, checkpoint("a1"))
        with pytest.raises(BrokerFailed, match="cannot be parts of a subject"):
            await control.cancel(cluster, node, "a1")
        assert await waiting_in(js) == 0


async def test_a_full_stream_is_said_to_be_full(broker: NatsServer) -> None:
    async with looking(broker) as js:
        full = api.StreamConfig(
            name="ACTIONS", subjects=["actions.>"], max_msgs=1, discard=api.DiscardPolicy.NEW
        )
        await js.add_stream(full)
        async with control_on(broker) as control:
            await control.hand_over("test", "node-a", checkpoint("a1"))
            with pytest.raises(BrokerFailed, match=r"ACTIONS.*maximum messages exceeded"):
                await control.hand_over("test", "node-a", checkpoint("a2"))
            assert control.ready
            await js.purge_stream("ACTIONS")
            await control.hand_over("test", "node-a", checkpoint("a2"))


async def test_what_is_too_big_for_the_broker_is_said_to_be(tmp_path: Path) -> None:
    with nats_server(tmp_path, max_payload=4096) as server:
        async with control_on(server) as control:
            spec = RestoreSpec("/" + "x" * 5000)
            with pytest.raises(BrokerFailed, match="max_payload"):
                await control.hand_over("test", "node-a", ActionRequest("a1", spec))
            assert control.ready


async def test_a_stream_that_vanished_is_complained_about_and_made_again(
    broker: NatsServer,
) -> None:
    async with control_on(broker) as control, looking(broker) as js:
        await js.delete_stream("ACTIONS")
        with pytest.raises(BrokerFailed, match=r"ACTIONS.* is gone"):
            await control.hand_over("test", "node-a", checkpoint("a1"))

        async def made() -> bool:
            return await waiting_in(js) == 0

        await eventually_async(made, "the stream")
        await is_ready(control)
        await control.hand_over("test", "node-a", checkpoint("a1"))


async def test_many_at_the_same_time(broker: NatsServer) -> None:
    async with control_on(broker) as control, looking(broker) as js:
        handing: list[Any] = [
            control.hand_over("test", f"node-{number % 7}", checkpoint(f"a{number}"))
            for number in range(200)
        ]
        await asyncio.gather(*handing)
        assert await waiting_in(js) == 200
