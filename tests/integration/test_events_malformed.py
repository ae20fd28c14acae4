"""Messages that are no requests: each is answered, acknowledged, and harmless."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.event_agents import (
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
from tests.waiting import eventually_async

STATES = ["initialized", "processing", "checkpoint_created", "ready"]


MALFORMED = {
    "half of a message": (b'{"actionId": "bad", "checkpoint": {"pod"', "message"),
    "no object": (b'{"actionId": "bad", "checkpoint": 5}', "checkpoint"),
    "a wrong type": (b'{"actionId": "bad", "checkpoint": {"name": 5}}', "checkpoint.name"),
    "an unknown kind": (b'{"actionId": "bad", "checkpoint": {"kind": "x"}}', "checkpoint.kind"),
    "an unknown field": (b'{"actionId": "bad", "checkpoint": {"pods": {}}}', "checkpoint.pods"),
    "no target": (b'{"actionId": "bad", "checkpoint": {}}', "checkpoint"),
    "another type": (b'{"actionId": "bad", "restore": {"path": "/x"}}', "action"),
    "nothing to do": (b'{"actionId": "bad"}', "action"),
    "five megabytes": (b'{"actionId": "bad", "x": "%s"}' % (b"x" * (5 << 20)), "message"),
}


@pytest.mark.parametrize("what", MALFORMED)
async def test_a_malformed_message_is_answered_with_its_field(
    broker: NatsServer, tmp_path: Path, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    payload, field = MALFORMED[what]
    async with agent_on(broker, tmp_path) as agent, looking(broker) as js:
        await agent.is_ready()
        publish(broker, payload)
        (event,) = await events_of(js, "bad", "error")
        assert event.event["failure"]["code"] == "invalid_argument"
        assert event.event["failure"]["field"] == field
        await all_answered(js)
        refused = [record for record in caplog.records if "message refused" in str(record.msg)]
        assert len(refused) == 1
        # And the agent goes on.
        publish(broker, request("good"))
        await events_of(js, "good", "ready")


@pytest.mark.parametrize(
    "payload",
    [b"", b"\xff\x00", b"[" * 100_000, b"5", b'{"checkpoint": {}}', b'{"actionId": "../x"}'],
    ids=["nothing", "no text", "deep", "a number", "no id", "an id that is none"],
)
async def test_a_message_without_an_id_is_acknowledged_and_harmless(
    broker: NatsServer, tmp_path: Path, payload: bytes
) -> None:
    async with agent_on(broker, tmp_path) as agent, looking(broker) as js:
        await agent.is_ready()
        publish(broker, payload)
        publish(broker, request("good"))
        await events_of(js, "good", "ready")
        await all_answered(js)
        assert {each.event["actionId"] for each in await stored(js)} == {"good"}


async def test_a_malformed_message_does_not_speak_for_the_action_of_its_id(
    broker: NatsServer, tmp_path: Path
) -> None:
    async with agent_on(broker, tmp_path, open_gate=False) as agent, looking(broker) as js:
        await agent.is_ready()
        publish(broker, request("a1"))
        await events_of(js, "a1", "checkpoint_created")
        publish(broker, b'{"actionId": "a1", "checkpoint": {}}')
        publish(broker, request("a1", uid="another"))

        async def both_gone() -> bool:
            return await waiting_in(js) == 1

        await eventually_async(both_gone, "both refused")
        agent.engine.gate.set()
        await events_of(js, "a1", "ready")
        assert [each.state for each in await stored(js)] == STATES
