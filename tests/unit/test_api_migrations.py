"""The tables as migrations make them, and as the classes have them."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, text

from agent.api import database as package
from agent.api.database import Database
from agent.api.database.tables import Table
from agent.api.errors import DatabaseFailed
from tests.api_rows import row


async def test_models_and_migrations_agree(database: Database) -> None:
    def differences(connection: Connection) -> list[object]:
        options = {"compare_type": True, "compare_server_default": True}
        context = MigrationContext.configure(connection, opts=options)
        return list(compare_metadata(context, Table.metadata))

    async with database.read() as session:
        connection = await session.connection()
        assert await connection.run_sync(differences) == []


async def test_again_it_changes_nothing(database: Database) -> None:
    made = row()
    async with database.write() as session:
        session.add(made)
    await database.migrate()
    # Also by several at once.
    await asyncio.gather(*(database.migrate() for _ in range(4)))
    async with database.read() as session:
        found = await session.scalar(text("SELECT action_id FROM actions"))
        versions = (await session.scalars(text("SELECT version_num FROM alembic_version"))).all()
    assert found == made.action_id
    assert len(versions) == 1


async def test_what_a_newer_version_has_made_is_left_alone(database: Database) -> None:
    async with database.write() as session:
        await session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(DatabaseFailed, match="another version of checkpoint-agent"):
        await database.migrate()
    async with database.read() as session:
        assert await session.scalar(text("SELECT version_num FROM alembic_version")) == "9999"


def test_steps_are_numbered_one_after_the_other() -> None:
    folder = Path(package.__file__).parent / "migrations" / "versions"
    before = "None"
    for number, file in enumerate(sorted(folder.glob("[0-9]*.py")), start=1):
        step = file.read_text()
        assert file.name.startswith(f"{number:04}_")
        assert f'revision = "{number:04}"' in step
        found = re.search(r"^down_revision = (.*)$", step, re.M)
        assert found is not None
        assert found[1].strip('"') == before
        before = f"{number:04}"
