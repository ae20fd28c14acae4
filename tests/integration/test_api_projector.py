"""What nodes say gets into the database once, whatever dies in between and whoever reads it."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from agent.api.database import projection
from agent.api.database.connection import now
from agent.api.database.tables import ProjectionRow, TransitionRow
from agent.messages.events import event_message
from agent.messages.model import State
from agent.messages.requests import to_json
from tests.api_nodes import path_of, pod
from tests.api_rows import checkpointed, said
from tests.api_servers import Api, api_in, in_database, postgres_settings
from tests.api_stages import Stage, nodes_of, stage_on, timeline
from tests.event_agents import request
from tests.servers.jetstream import Api as JetStream
from tests.servers.jetstream import RefusedByServer
from tests.servers.nats import NatsServer
from tests.servers.postgres import PostgresServer
from tests.waiting import eventually

STATES = ["initialized", "processing", "checkpoint_created", "ready"]


@pytest.fixture(params=["sqlite", "postgres"])
def own(request: pytest.FixtureRequest, broker: NatsServer, tmp_path: Path) -> Iterator[Stage]:
    """An API that a test may kill."""
    tables, env = None, None
    if request.param == "postgres":
        server: PostgresServer = request.getfixturevalue("postgres")
        url = request.getfixturevalue("postgres_database")
        tables, env = postgres_settings(url, server.password)
    with stage_on(broker, tmp_path, tables, env) as made:
        yield made


def projects(api: Api) -> bool:
    """Whether this instance takes over events."""
    found = re.search(r"^checkpoint_api_projecting (\S+)$", api.get("/metrics").text, re.M)
    assert found is not None
    return float(found[1]) == 1


def without_lease(api: Api) -> None:
    """Spare the test the ten seconds for which nobody may follow one that was killed."""

    async def forget(session: AsyncSession) -> None:
        await session.execute(update(ProjectionRow).values(held_until=0))

    in_database(api, forget)


def test_killed_between_two_events(own: Stage) -> None:
    web = pod("web")
    with own.node(web, open_gate=False) as node:
        action_id = own.checkpoint(web)
        own.api.wait_state(action_id, "checkpoint_created")
        own.api.kill()
        node.let_go()
        without_lease(own.api)
        own.api.start()
        done = own.api.wait_state(action_id, "ready")
    assert timeline(done) == STATES
    sequences = [step["sequence"] for step in done["timeline"]]
    assert sequences == sorted(set(sequences))
    assert own.api.get("/v2/checkpoint/path?name=default/web/app").text == path_of(action_id)


def test_killed_again_and_again(own: Stage) -> None:
    """With an action in every state each time: none is lost, none counts twice."""
    pods = [pod(f"web-{number}") for number in range(30)]
    with own.node(*pods) as node:
        asked = []
        for killed in range(3):
            asked += [own.checkpoint(each) for each in pods[killed * 10 : killed * 10 + 10]]
            own.api.kill()
            without_lease(own.api)
            own.api.start()
            own.api.wait_ready()
            eventually(lambda: node.name in own.api.get("/v2/nodes").text, "the node")
        for action_id in asked:
            assert timeline(own.api.wait_state(action_id, "ready")) == STATES
        assert sorted(node.engine.runs) == sorted(asked)
        assert len(own.api.get("/v2/actions").json()) == len(asked)


def test_all_of_it_once_more_changes_nothing(own: Stage) -> None:
    web, gone = pod("web"), pod("gone", uid=f"unknown-{pod().ref.uid}")
    with own.node(web, gone):
        ready = [own.ready(web) for _ in range(3)]
        failed = own.checkpoint(gone)
        own.api.wait_state(failed, "error")
    before = {each: own.api.get(f"/v2/actions/{each}").json() for each in (*ready, failed)}

    async def steps(session: AsyncSession) -> int:
        return len((await session.scalars(select(TransitionRow))).all())

    async def forget(session: AsyncSession) -> None:
        await session.execute(delete(ProjectionRow))

    count = in_database(own.api, steps)
    assert own.api.stop() == 0
    in_database(own.api, forget)
    own.api.start()
    own.api.wait_ready()
    assert_reads_on(own)
    assert {each: own.api.get(f"/v2/actions/{each}").json() for each in before} == before
    # The last one is what has shown that everything before it was read again.
    assert in_database(own.api, steps) == count + 1


def test_all_know_until_when_it_has_read(own: Stage) -> None:
    """With a broker, whether anything is said or not; without one that stands still."""

    async def age(session: AsyncSession) -> float:
        return (now() - await projection.caught_up(session)) / 1e6

    # Also while nodes talk all the time.
    for number in range(1, 8):
        late = said("99999999-9999-4999-8999-999999999999", number, State.PROCESSING)
        publish(own, late.event)
        time.sleep(1)
    assert in_database(own.api, age) < 5
    # Every look waits three seconds for something to be said.
    time.sleep(4)
    assert in_database(own.api, age) < 7
    own.broker.pause()
    eventually(lambda: in_database(own.api, age) > 8, "nothing taken over")
    own.broker.resume()
    eventually(lambda: in_database(own.api, age) < 5, "being there again")


def assert_reads_on(stage: Stage) -> None:
    """Whatever was published so far has been read when this returns."""
    late = said("99999999-9999-4999-8999-999999999999", 1, State.ERROR)
    publish(stage, late.event)
    assert late.event is not None
    path = f"/v2/checkpoint/status/{late.event.action_id}"
    eventually(lambda: stage.api.get(path).status == 200, "the last event being read")


def publish(stage: Stage, event: Any) -> None:  # noqa: ANN401 - an Event, if it is one
    message = event_message(event, cluster="test", node="node-x")
    stage.say(f"action-events.test.{event.action_id}", to_json(message))


@pytest.mark.parametrize("own", ["sqlite"], indirect=True)
def test_an_action_that_was_not_asked_for_here_appears(own: Stage) -> None:
    web = pod("web", "direct", containers=(("app", "its-name"),))
    action_id = "11111111-2222-4333-8444-555555555555"
    with own.node(web) as node:
        own.say(f"actions.test.{node.name}.checkpoint", request(action_id, web.ref.uid))
        eventually(
            lambda: own.api.get(f"/v2/checkpoint/status/{action_id}").status == 200, "the action"
        )
        done = own.api.wait_state(action_id, "ready")
        again = own.ready(web)
        path = own.api.get("/v2/checkpoint/path?name=its-name").text
        assert path == path_of(again)
    assert timeline(done) == STATES
    assert (done["node_name"], done["type"]) == (node.name, "checkpoint_pod")
    assert done["details"]["cluster"] == "test"
    assert done["details"]["pod"]["uid"] == web.ref.uid
    # It can be restored like any other.
    with own.node(name=node.name):
        answer = own.api.post("/v2/restore/pod", {"action_id": action_id, "reason": "manual"})
        assert answer.status == 200
        assert own.api.wait_state(answer.text, "ready")["checkpoint_id"] == action_id


@pytest.mark.parametrize("own", ["sqlite"], indirect=True)
def test_a_stream_that_was_deleted_is_made_and_read_again(own: Stage) -> None:
    web = pod("web")
    with own.node(web):
        first = own.ready(web)
        for _ in range(2):
            with JetStream(own.broker.port) as broker:
                broker.ask("STREAM.DELETE.ACTION_EVENTS")

            def made() -> bool:
                with JetStream(own.broker.port) as broker:
                    try:
                        broker.ask("STREAM.INFO.ACTION_EVENTS")
                    except RefusedByServer:
                        return False
                    return True

            eventually(made, "the stream being made again")
            own.api.wait_ready()
            own.ready(web)
        assert timeline(own.api.get(f"/v2/actions/{first}").json()) == STATES


def test_two_instances_take_turns(
    broker: NatsServer, postgres: PostgresServer, postgres_database: str, tmp_path: Path
) -> None:
    web = pod("web")
    settings = postgres_settings(postgres_database, postgres.password)
    with ExitStack() as stack:
        apis = []
        for name in ("one", "other"):
            (tmp_path / name).mkdir()
            apis.append(stack.enter_context(api_in(tmp_path / name, broker.url, *settings)))
            apis[-1].wait_ready()
        eventually(lambda: projects(apis[0]), "the first one beginning")
        stages = [Stage(api, broker, tmp_path) for api in apis]
        with stages[1].node(web) as node:
            # Each reads the inventory for itself.
            eventually(lambda: node.name in nodes_of(apis[0]), "the first one knowing the node")
            # What was asked of either can be seen at both.
            asked = [stage.ready(web) for stage in stages for _ in range(2)]
            for api in apis:
                assert {api.state_of(each) for each in asked} == {"ready"}
            assert [projects(api) for api in apis] == [True, False]
            apis[0].kill()
            without_lease(apis[1])
            eventually(lambda: projects(apis[1]), "the other one taking over")
            asked.append(stages[1].ready(web))
            # The one that comes back waits for its turn, and gets it when the other one ends.
            apis[0].start()
            apis[0].wait_ready()
            eventually(lambda: node.name in nodes_of(apis[0]), "the first one knowing the node")
            asked.append(stages[0].ready(web))
            assert [projects(api) for api in apis] == [False, True]
            assert apis[1].stop() == 0
            eventually(lambda: projects(apis[0]), "the first one going on")
            asked.append(stages[0].ready(web))
        for each in asked:
            assert timeline(apis[0].get(f"/v2/actions/{each}").json()) == STATES
        assert node.engine.runs == asked


def test_what_is_told_twice_and_in_disorder(sqlite_stage: Stage) -> None:
    action_id = "22222222-2222-4333-8444-555555555555"
    sqlite_stage.api.wait_ready()
    events = {
        1: said(action_id, 1, State.INITIALIZED),
        2: said(action_id, 2, State.PROCESSING),
        3: said(action_id, 3, State.CHECKPOINT_CREATED, checkpoint=checkpointed(action_id)),
        4: said(action_id, 4, State.READY, checkpoint=checkpointed(action_id)),
    }
    for number in (1, 1, 3, 2, 1, 4, 4, 3, 2, 1):
        publish(sqlite_stage, events[number].event)
    sqlite_stage.say(f"action-events.test.{action_id}", b"{}")
    assert_reads_on(sqlite_stage)
    done = sqlite_stage.api.get(f"/v2/actions/{action_id}").json()
    assert done["status"] == "ready"
    assert timeline(done) == ["initialized", "checkpoint_created", "ready"]
