"""Which actions are given up, and which are not yet."""

from __future__ import annotations

import asyncio
import json

import pytest
from prometheus_client import generate_latest

from agent.api.database import Database
from agent.api.database import actions as table
from agent.api.database.connection import now
from agent.api.database.tables import ActionRow, IdempotencyRow
from agent.api.metrics import ApiMetrics
from agent.api.parts import Parts
from agent.api.sweeper import NEVER_SENT, NEVER_TAKEN, Sweeper
from agent.events import Control
from agent.settings import Api, Nats, Settings
from tests.api_rows import caught_up, row

LOST = 100.0


class Swept:
    """A sweeper whose broker is not there, and whose nodes are as a test has them."""

    def __init__(self, database: Database) -> None:
        settings = Settings(api=Api(node_lost_seconds=LOST), nats=Nats(url="nats://127.0.0.1:1"))
        self.database = database
        self.control = Control(settings.nats, "api")
        self.metrics = ApiMetrics("test")
        self.sweeper = Sweeper(Parts(settings, database, self.control, self.metrics))
        # Seconds since when what nodes say is not taken over.
        self.behind = 0.0

    def see(self, *nodes: str, since: float = 2 * LOST) -> None:
        """Have seen all nodes, for so many seconds."""
        loop, inventory = asyncio.get_running_loop(), self.control.nodes
        inventory.begin(1e9)
        for node in nodes:
            entry = json.dumps({"cluster": "test", "node": node}).encode()
            inventory.renew(f"test.{node}", entry, loop.time())
        inventory.complete(loop.time())
        inventory.steady_since = loop.time() - since

    async def code(self, made: ActionRow) -> str:
        """Why an action is ended by a sweep; "" where it is not."""
        async with self.database.write() as session:
            session.add(made)
            await session.merge(caught_up(self.behind))
        await self.sweeper.sweep()
        async with self.database.read() as session:
            found = await table.get(session, made.action_id)
        assert found is not None
        if found.state != "error":
            assert found.failure == made.failure
            return ""
        assert found.failure is not None
        return str(found.failure["code"])


def silent(seconds: float, **fields: object) -> ActionRow:
    """Nothing was heard of it for so long."""
    then = now() - int(seconds * 1e6)
    return row(created=then, updated=then, **fields)


@pytest.fixture
def swept(database: Database) -> Swept:
    return Swept(database)


async def test_what_was_never_sent(swept: Swept) -> None:
    assert await swept.code(silent(NEVER_SENT - 5)) == ""
    assert await swept.code(silent(NEVER_SENT + 1)) == "never_sent"
    # Nobody has to be there for that, and nobody is.
    assert swept.control.nodes.steady_since is None


async def test_what_nobody_took_in_a_day(swept: Swept) -> None:
    swept.see("node-a")
    taken = silent(NEVER_TAKEN + 1, handed_over=True, sequence=1, state="processing")
    assert await swept.code(taken) == ""
    assert await swept.code(silent(NEVER_TAKEN - 60, handed_over=True)) == ""
    assert await swept.code(silent(NEVER_TAKEN + 1, handed_over=True)) == "never_taken"


async def test_what_a_node_has_taken_with_it(swept: Swept) -> None:
    swept.see("node-b")
    fields = {"handed_over": True, "sequence": 3, "state": "processing"}
    assert await swept.code(silent(LOST - 5, **fields)) == ""
    assert await swept.code(silent(LOST + 1, **fields)) == "node_lost"
    assert await swept.code(silent(LOST + 1, **fields, node="node-b")) == ""
    # Of the same name, and somebody else.
    assert await swept.code(silent(LOST + 1, **fields, cluster="other", node="node-b")) != ""
    # What waits for it in the stream is lost as well.
    assert await swept.code(silent(LOST + 1, handed_over=True)) == "node_lost"


async def test_what_waits_in_the_stream_is_not_silence(swept: Swept) -> None:
    """A database was away: what a node that has gone since said last is not taken over yet."""
    swept.see()
    swept.behind = 2 * LOST
    going_on = silent(3 * LOST - 5, handed_over=True, sequence=2, state="checkpoint_created")
    assert await swept.code(going_on) == ""
    waits = {"type": "restore_pod", "node": "", "restored_from": "x", "handed_over": True}
    assert await swept.code(silent(3 * LOST - 5, **waits)) == ""
    swept.see("node-b")
    assert await swept.code(silent(NEVER_TAKEN + LOST, handed_over=True, node="node-b")) == ""
    # It had been silent before.
    lost = silent(3 * LOST + 5, handed_over=True, sequence=2, state="processing")
    assert await swept.code(lost) == "node_lost"
    async with swept.database.read() as session:
        found = await table.get(session, going_on.action_id)
    assert found is not None
    assert found.state == "checkpoint_created"


async def test_who_has_read_nothing_yet_gives_nobody_up(swept: Swept) -> None:
    swept.see()
    swept.behind = now() / 1e6
    assert await swept.code(silent(NEVER_TAKEN + 1, handed_over=True)) == ""


async def test_an_agent_that_is_started_anew_loses_nothing(swept: Swept) -> None:
    """What waits for its turn there is silent for as long as that takes."""
    swept.see("node-a")
    nodes, time = swept.control.nodes, asyncio.get_running_loop().time()
    waits = {"handed_over": True, "sequence": 1}
    nodes.remove("test.node-a", time)
    assert await swept.code(silent(10 * LOST, **waits)) == ""
    swept.see("node-a")
    nodes.remove("test.node-a", time - LOST + 5)
    assert await swept.code(silent(10 * LOST, **waits)) == ""
    swept.see("node-a")
    nodes.remove("test.node-a", time - LOST)
    assert await swept.code(silent(10 * LOST, **waits)) == "node_lost"


async def test_who_has_not_looked_for_long_enough_cannot_tell(swept: Swept) -> None:
    old = {"handed_over": True, "sequence": 3, "state": "checkpoint_created"}
    assert await swept.code(silent(10 * LOST, **old)) == ""
    swept.see(since=LOST - 5)
    assert await swept.code(silent(10 * LOST, **old)) == ""
    swept.see(since=LOST + 1)
    assert await swept.code(silent(10 * LOST, **old)) == "node_lost"


@pytest.mark.parametrize("state", ["ready", "error"])
async def test_what_is_over_is_over(swept: Swept, state: str) -> None:
    swept.see()
    failure = {"code": "", "message": "its own"} if state == "error" else None
    made = silent(10 * NEVER_TAKEN, state=state, failure=failure)
    assert await swept.code(made) == ""


async def test_what_was_heard_of_meanwhile_goes_on(swept: Swept) -> None:
    made = silent(NEVER_SENT + 1, sequence=4)
    async with swept.database.write() as session:
        session.add(made)
    async with swept.database.write() as session:
        assert not await table.give_up(session, made.action_id, {}, seen=3)
        assert await table.give_up(session, made.action_id, {"code": "x"}, seen=4)
        assert not await table.give_up(session, made.action_id, {"code": "y"})
    async with swept.database.read() as session:
        steps = await table.transitions(session, made.action_id)
    assert [(step.sequence, step.state) for step in steps] == [(-1, "error")]


async def test_hundreds_that_wait_keep_none_from_being_ended(swept: Swept) -> None:
    swept.see("node-a")
    # All of the same instant, on a node that is there; and one that is younger, on one that is not.
    then = now() - int(2 * LOST * 1e6)
    waiting = [row(created=then, updated=then, handed_over=True) for _ in range(600)]
    async with swept.database.write() as session:
        session.add_all(waiting)
    assert await swept.code(silent(LOST + 1, handed_over=True, node="gone")) == "node_lost"
    async with swept.database.read() as session:
        left = await table.unheard_of(session, now(), 1000)
    assert len(left) == 600
    told = generate_latest(swept.metrics.registry).decode()
    assert 'checkpoint_api_actions_given_up_total{code="node_lost"} 1.0' in told


async def test_what_waits_for_a_pod_is_no_nodes(swept: Swept) -> None:
    swept.see()
    waits = {"type": "restore_pod", "node": "", "restored_from": "x", "handed_over": True}
    assert await swept.code(silent(LOST - 5, **waits)) == ""
    # Nobody sees to it any more: this API has no access to a cluster.
    assert await swept.code(silent(LOST + 1, **waits)) == "cluster_unreachable"


async def test_keys_are_forgotten_after_a_day(swept: Swept) -> None:
    hour = 3_600_000_000
    keys = {
        key: IdempotencyRow(
            token_id="t", key=key, action_id="a", fingerprint="f", created=now() - hours * hour
        )
        for key, hours in (("old", 25), ("young", 23))
    }
    async with swept.database.write() as session:
        session.add_all(keys.values())
    await swept.sweeper.sweep()
    async with swept.database.read() as session:
        found = {key: await table.idempotent(session, "t", key) is not None for key in keys}
    assert found == {"old": False, "young": True}


async def test_what_was_given_up_was_not_handed_over(swept: Swept) -> None:
    going_on, ended, taken = row(), row(state="error"), row(state="error", handed_over=True)
    async with swept.database.write() as session:
        session.add_all([going_on, ended, taken])
    async with swept.database.write() as session:
        assert await table.handed_over(session, going_on.action_id)
        assert not await table.handed_over(session, ended.action_id)
        # Its node was quicker than the broker's confirmation.
        assert await table.handed_over(session, taken.action_id)
