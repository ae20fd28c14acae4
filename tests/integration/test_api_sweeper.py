"""Actions that nobody else ends: the node is gone, or the API died before they were sent."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncSession

from agent.api.database.connection import now
from agent.api.database.tables import ActionRow
from agent.messages.events import event_message
from agent.messages.model import State
from agent.messages.requests import to_json
from tests.api_nodes import pod
from tests.api_rows import checkpointed, row, said
from tests.api_servers import in_database
from tests.api_stages import Stage, put, stage_on, timeline
from tests.daemons import Tables
from tests.servers.nats import NatsServer
from tests.waiting import eventually

# Seconds. The shortest lease there is, and how long a node may be away.
LEASE, LOST = 3.0, 2.0
SHORT = {"lease_seconds": LEASE}


@pytest.fixture
def own(broker: NatsServer, tmp_path: Path) -> Iterator[Stage]:
    """An API that gives nodes up soon."""
    tables: Tables = {"api": {"node_lost_seconds": LOST}, "nats": dict(SHORT)}
    with stage_on(broker, tmp_path, tables) as made:
        yield made


def age(stage: Stage, action_id: str, seconds: float) -> None:
    """Let it be that long since anything was heard of an action."""

    async def change(session: AsyncSession) -> None:
        then = now() - int(seconds * 1e6)
        await session.execute(
            update(ActionRow).where(ActionRow.action_id == action_id).values(updated=then)
        )

    in_database(stage.api, change)


def swept(stage: Stage) -> None:
    """Return after a sweep that has seen all actions that there are by now."""
    # Those that were asked for last are looked at last.
    marker = row(updated=now() - 60_000_000)
    put(stage.api, marker)
    stage.api.wait_state(marker.action_id, "error")


def test_a_node_that_vanishes_takes_its_actions_with_it(own: Stage) -> None:
    web, slow = pod("web"), pod("slow")
    with (
        own.node(slow, open_gate=False, nats=SHORT) as living,
        own.node(web, open_gate=False, nats=SHORT) as node,
    ):
        lost, going_on = own.checkpoint(web), own.checkpoint(slow)
        for action_id in (lost, going_on):
            own.api.wait_state(action_id, "checkpoint_created")
        node.die()
        done = own.api.wait_state(lost, "error")
        error = done["details"]["error"]
        assert error["code"] == "node_lost"
        assert node.name in error["message"]
        assert error["hint"]
        assert timeline(done) == ["initialized", "processing", "checkpoint_created", "error"]
        # Whatever it says when it is back: somebody may have acted upon it.
        outcome = checkpointed(lost)
        late = said(lost, 99, State.READY, time=datetime.now(UTC), checkpoint=outcome)
        assert late.event is not None
        message = event_message(late.event, cluster="test", node=node.name)
        own.say(f"action-events.test.{lost}", to_json(message))
        eventually(
            lambda: timeline(own.api.get(f"/v2/actions/{lost}").json())[-1] == "ready",
            "the late event in the timeline",
        )
        after = own.api.get(f"/v2/actions/{lost}").json()
        assert (after["status"], after["details"]["error"]) == ("error", error)
        assert own.api.get("/v2/checkpoint/path?name=default/web/app").status == 400
        # Slow is not lost: as long as its node is there, it has all the time it needs.
        assert own.api.state_of(going_on) == "checkpoint_created"
        age(own, going_on, 3600)
        swept(own)
        assert own.api.state_of(going_on) == "checkpoint_created"
        living.let_go()
        own.api.wait_state(going_on, "ready")


def test_a_broker_that_is_away_takes_no_node_with_it(own: Stage) -> None:
    web = pod("web")
    with own.node(web, open_gate=False, nats=SHORT) as node:
        action_id = own.checkpoint(web)
        own.api.wait_state(action_id, "checkpoint_created")
        own.broker.kill()
        age(own, action_id, 3600)
        began = time.monotonic()
        while time.monotonic() - began < LOST:
            swept(own)
            # Nobody can tell who is there.
            assert own.api.state_of(action_id) == "checkpoint_created"
        # From then on it counts again, and the node may be slower than the API to find the broker.
        age(own, action_id, -60)
        node.let_go()
        own.broker.start()
        own.api.wait_state(action_id, "ready")


def test_what_was_stored_and_never_sent(own: Stage) -> None:
    old = now() - 60_000_000
    never = row(created=old, updated=old)
    put(own.api, never)
    done = own.api.wait_state(never.action_id, "error")
    assert done["details"]["error"]["code"] == "never_sent"
    assert timeline(done) == ["initialized", "error"]
    status = own.api.get(f"/v2/checkpoint/status/{never.action_id}").json()
    assert "ask for it again" in status["details"]


def test_an_api_that_dies_while_it_publishes(own: Stage) -> None:
    web = pod("web")
    with own.node(web, nats=SHORT) as node, ThreadPoolExecutor(1) as pool:
        own.broker.pause()
        asking = pool.submit(own.api.post, "/v2/checkpoint/pod", {"pod_id": web.ref.uid})
        eventually(lambda: len(own.api.get("/v2/actions").json()) == 1, "the action being stored")
        (action,) = own.api.get("/v2/actions").json()
        own.broker.kill()
        own.api.kill()
        with pytest.raises(OSError, match="onnection"):
            asking.result()
        age(own, action["action_id"], 60)
        own.broker.start()
        own.api.start()
        done = own.api.wait_state(action["action_id"], "error", "ready")
        assert done["details"]["error"]["code"] == "never_sent"
        assert node.engine.runs == []
