"""What is in an API's database, and what nodes say, made by hand."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from pydantic import SecretStr

from agent.api.database import Database, open_database
from agent.api.database.connection import now
from agent.api.database.tables import ActionRow, ProjectionRow
from agent.events import StoredEvent
from agent.messages.model import ActionType, CheckpointOutcome, Event, RestoreOutcome, State
from agent.settings import Api
from tests.servers.postgres import PostgresServer

# Of the first event that is made by hand.
BEGAN: Final = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)


def row(**fields: Any) -> ActionRow:  # noqa: ANN401 - as the columns are
    """A checkpoint that was just asked for."""
    time = now()
    given = {
        "action_id": str(uuid.uuid4()),
        "type": "checkpoint_pod",
        "state": "initialized",
        "cluster": "test",
        "node": "node-a",
        "created": time,
        "updated": time,
    }
    return ActionRow(**{**given, **fields})


def caught_up(seconds_ago: float) -> ProjectionRow:
    """All that was said until so long ago is taken over."""
    then = now() - int(seconds_ago * 1e6)
    return ProjectionRow(id=1, stream="", sequence=0, holder="", held_until=0, caught_up=then)


def said(
    action_id: str,
    sequence: int,
    state: State,
    *,
    type: ActionType = ActionType.CHECKPOINT,
    node: str = "node-a",
    **fields: Any,  # noqa: ANN401 - as an event has them
) -> StoredEvent:
    """What a node said of an action, a second for each number."""
    time = fields.pop("time", BEGAN + timedelta(seconds=min(max(sequence, 0), 10_000)))
    event = Event(action_id, sequence, state, type, time, **fields)
    return StoredEvent(1, event, "test", node, b"{}")


def checkpointed(action_id: str, **fields: Any) -> CheckpointOutcome:  # noqa: ANN401 - as it is
    """A checkpoint's outcome."""
    given = {
        "checkpoint_id": action_id,
        "path": f"memory:/{action_id}",
        "name": None,
        "frozen_seconds": 0.5,
        "wall_seconds": 2.0,
        "phases": {"freeze": 0.1, "dump": 0.4, "store": 1.0},
        "bytes_raw": 4096,
        "bytes_stored": 1024,
        "containers": ("app",),
        "platform": "debian-13",
    }
    return CheckpointOutcome(**{**given, **fields})


def restored(path: str) -> RestoreOutcome:
    """A restore's outcome."""
    return RestoreOutcome(path, 1.5, {"prepare": 0.5, "restore": 1.0}, 4096, 1024)


def sqlite_settings(folder: Path) -> Api:
    """A file that is not there yet."""
    return Api(database=f"sqlite:///{folder}/api.db")


def postgres_api_settings(url: str, password: str) -> Api:
    """A database on the tests' server."""
    return Api(database=url, database_password=SecretStr(password))


@asynccontextmanager
async def opened(settings: Api) -> AsyncIterator[Database]:
    """A database with its tables."""
    database = open_database(settings)
    try:
        await database.migrate()
        yield database
    finally:
        await database.close()


@pytest.fixture(params=["sqlite", "postgres"])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    """One of either kind, empty, with its tables."""
    if request.param == "sqlite":
        settings = sqlite_settings(tmp_path)
    else:
        server: PostgresServer = request.getfixturevalue("postgres")
        url = request.getfixturevalue("postgres_database")
        settings = postgres_api_settings(url, server.password)
    async with opened(settings) as made:
        yield made
