"""An API with its broker and its database, for all tests of a module: starting one takes a second.

Pods, nodes and tokens are each test's own, so that what others have left plays no part.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from agent.api.database.tables import Table
from agent.pb.checkpoint_agent.v1 import inventory_pb2
from tests.api_nodes import Node, node_on
from tests.api_servers import Api, api_in, in_database, is_action_id, postgres_settings
from tests.daemons import Tables
from tests.event_agents import publish
from tests.servers.nats import NatsServer, nats_server
from tests.servers.postgres import PostgresServer
from tests.waiting import eventually


@dataclass(frozen=True, slots=True)
class Stage:
    """``folder`` is everybody's: nodes have theirs in it."""

    api: Api
    broker: NatsServer
    folder: Path

    @contextlib.contextmanager
    def node(
        self,
        *pods: inventory_pb2.Pod,
        name: str | None = None,
        open_gate: bool = True,
        **tables: dict[str, Any],
    ) -> Iterator[Node]:
        """A node that the API knows, with its pods."""
        made = node_on(self.broker, self.folder, *pods, name=name, open_gate=open_gate, **tables)
        with made as node:
            eventually(lambda: node.name in nodes_of(self.api), f"the API knowing {node.name}")
            yield node

    def say(self, subject: str, payload: bytes) -> None:
        """Publish, as anybody may who is let in."""
        publish(self.broker, payload, subject)

    def checkpoint(self, pod: inventory_pb2.Pod, **body: object) -> str:
        """Ask for one; the action's id."""
        return accepted(self.api, "checkpoint", {"pod_id": pod.ref.uid, **body})

    def ready(self, pod: inventory_pb2.Pod, **body: object) -> str:
        """A checkpoint that is ready; the action's id."""
        action_id = self.checkpoint(pod, **body)
        assert self.api.wait_state(action_id, "ready", "error")["status"] == "ready"
        return action_id


def put(api: Api, *rows: Table) -> None:
    """Rows into an API's database, as if they had come about."""

    async def insert(session: AsyncSession) -> None:
        session.add_all(rows)

    in_database(api, insert)


def timeline(detail: Mapping[str, Any]) -> list[str]:
    """The states that an action has come through."""
    return [step["state"] for step in detail["timeline"]]


@contextlib.contextmanager
def stage_on(
    broker: NatsServer,
    folder: Path,
    tables: Tables | None = None,
    env: Mapping[str, str] | None = None,
) -> Iterator[Stage]:
    """One of a test's own, that it may do anything to."""
    own = folder / "api"
    own.mkdir()
    with api_in(own, broker.url, tables, env) as api:
        api.wait_ready()
        yield Stage(api, broker, folder)


def accepted(api: Api, what: str, body: object, key: str | None = None) -> str:
    """Ask for a checkpoint or a restore, which is taken; the action's id."""
    answer = api.post(f"/v2/{what}/pod", body, key=key)
    assert answer.status == 200, answer.text
    assert is_action_id(answer.text)
    return answer.text


def nodes_of(api: Api) -> list[str]:
    """The names of those that it knows."""
    answer = api.get("/v2/nodes")
    return [node["node"] for node in answer.json()] if answer.status == 200 else []


@pytest.fixture(scope="module")
def sqlite_stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """On SQLite."""
    folder = tmp_path_factory.mktemp("sqlite")
    with nats_server(folder) as broker, api_in(folder, broker.url) as api:
        yield Stage(api, broker, folder)


@pytest.fixture(scope="module")
def postgres_stage(
    tmp_path_factory: pytest.TempPathFactory, postgres: PostgresServer
) -> Iterator[Stage]:
    """On PostgreSQL."""
    folder = tmp_path_factory.mktemp("postgres")
    url = postgres.new_database()
    tables, env = postgres_settings(url, postgres.password)
    with nats_server(folder) as broker, api_in(folder, broker.url, tables, env) as api:
        yield Stage(api, broker, folder)
    postgres.drop_database(url)


@pytest.fixture(params=["sqlite", "postgres"])
def stage(request: pytest.FixtureRequest) -> Stage:
    """On either."""
    found = request.getfixturevalue(f"{request.param}_stage")
    assert isinstance(found, Stage)
    found.api.wait_ready()
    return found
