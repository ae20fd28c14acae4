"""Messages that come while the journal cannot be written: each is answered when it can."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.event_agents import HERE, agent_on, all_answered, events_of, looking, publish, request
from tests.servers.nats import NatsServer
from tests.waiting import eventually_async

# The broker gives a message twice, and a second time soon.
IMPATIENT = {"ack_wait_seconds": 1, "max_deliver": 2}


@contextmanager
def full(folder: Path) -> Iterator[None]:
    """There is no room for another event in the journal of the node."""
    with closing(sqlite3.connect(folder / "node-a" / "actions.db", isolation_level=None)) as other:
        other.execute(
            "CREATE TRIGGER full BEFORE INSERT ON outbox BEGIN SELECT RAISE(ABORT, 'full'); END"
        )
        try:
            yield
        finally:
            other.execute("DROP TRIGGER full")


async def held_up(caplog: pytest.LogCaptureFixture) -> None:
    await eventually_async(lambda: "actions.db: full" in caplog.text, "a message that has to wait")


async def test_what_waits_for_room_is_cancelled(
    broker: NatsServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with agent_on(broker, tmp_path) as agent, looking(broker) as js:
        await agent.is_ready()
        with full(tmp_path):
            publish(broker, request("a1"))
            await held_up(caplog)
            cancel = json.dumps({"actionId": "a1", "cancel": {}}).encode()
            publish(broker, cancel, f"{HERE}.cancel")
            # Longer than what is not on its way from the broker is waited for.
            await asyncio.sleep(4)
        (event,) = await events_of(js, "a1", "error")
        assert event.event["failure"]["code"] == "cancelled"
        await all_answered(js)
        publish(broker, request("a2"))
        await events_of(js, "a2", "ready")
        assert agent.engine.runs == ["a2"]
    assert "no such action" not in caplog.text


async def test_what_is_no_request_is_answered_when_there_is_room(
    broker: NatsServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with agent_on(broker, tmp_path, nats=dict(IMPATIENT)) as agent, looking(broker) as js:
        await agent.is_ready()
        with full(tmp_path):
            publish(broker, b'{"actionId": "bad"}')
            await held_up(caplog)
            await asyncio.sleep(4)
        (event,) = await events_of(js, "bad", "error")
        assert event.event["failure"]["code"] == "invalid_argument"
        await all_answered(js)
