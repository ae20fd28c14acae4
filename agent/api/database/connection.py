"""One engine for both databases: reading and writing transactions, and errors that are ours."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection, event, make_url, text
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)

from agent.api.errors import DatabaseFailed
from agent.errors import InvalidArgument
from agent.logs import redacted
from agent.settings import Api

# Milliseconds that SQLite waits for another process's transaction: as long as the longest of ours.
_BUSY: Final = 10_000
# Connections of one instance: PostgreSQL serves 100 in all unless it is told otherwise.
_POOL: Final = 10
# Of PostgreSQL's advisory locks; two instances that start together migrate one after the other.
_MIGRATION_LOCK: Final = 0x63686B70


def now() -> int:
    """Microseconds since 1970."""
    return time.time_ns() // 1000


class Database:
    """Transactions on one database. All errors but IntegrityError become DatabaseFailed."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._readers = async_sessionmaker(engine, expire_on_commit=False)
        options: dict[str, Any] = {"writes": True}
        if engine.dialect.name == "postgresql":
            options["isolation_level"] = "READ COMMITTED"
        self._writing = engine.execution_options(**options)
        self._writers = async_sessionmaker(self._writing, expire_on_commit=False)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncSession]:
        """For what changes nothing.

        Raises:
            DatabaseFailed
        """
        with_session = self._readers()
        async with _translated(), with_session as session:
            yield session

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncSession]:
        """A transaction that is committed at the end of the block, or not at all.

        Raises:
            DatabaseFailed
            IntegrityError: somebody else was faster.
        """
        async with _translated(), self._writers.begin() as session:
            yield session

    async def migrate(self) -> None:
        """Bring the tables up to date; waits for another instance that does it.

        Raises:
            DatabaseFailed: also when a newer version has been here.
        """
        async with _translated(), self._writing.begin() as connection:
            if connection.dialect.name == "postgresql":
                await connection.execute(text(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})"))
            try:
                await connection.run_sync(_upgrade)
            except CommandError as error:
                raise DatabaseFailed(
                    f"made by another version of checkpoint-agent: {error}"
                ) from error

    async def close(self) -> None:
        """End all connections."""
        await self._engine.dispose()


def open_database(settings: Api) -> Database:
    """The configured database; connects when it is first used.

    Raises:
        InvalidArgument: the password's file cannot be read, or SQLite's directory be made.
        DatabaseFailed: SQLite's file cannot be opened.
    """
    url = make_url(settings.database)
    if url.drivername == "sqlite":
        return Database(_sqlite(Path(url.database or "")))
    password = _password(settings)
    engine = create_async_engine(
        url.set(drivername="postgresql+asyncpg", password=password),
        pool_size=_POOL,
        max_overflow=0,
        # A connection that the server closed meanwhile is noticed before it is used.
        pool_pre_ping=True,
        # Readers ask once, and so does the ping: in a transaction each would take three messages.
        isolation_level="AUTOCOMMIT",
        connect_args={"timeout": 10, "command_timeout": 30},
    )
    return Database(engine)


def describe(settings: Api) -> str:
    """The database for a line in a log: no user, no password."""
    parts = urlsplit(settings.database)
    return f"{parts.scheme}://{parts.hostname or ''}{parts.path}"


def _password(settings: Api) -> str | None:
    if settings.database_password is not None:
        return settings.database_password.get_secret_value()
    if settings.database_password_file is None:
        return None
    try:
        return settings.database_password_file.read_text().strip()
    except OSError as error:
        argument = "[api] database_password_file"
        raise InvalidArgument(argument, error.strerror or "cannot be read") from error


def _sqlite(file: Path) -> AsyncEngine:
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise InvalidArgument("[api] database", f"{file.parent}: {error.strerror}") from error
    try:
        # The driver's thread would still complain when we have long given up.
        sqlite3.connect(file).close()
    except sqlite3.Error as error:
        raise DatabaseFailed(f"{file}: {error}") from error
    engine = create_async_engine(f"sqlite+aiosqlite:///{file}", pool_size=_POOL, max_overflow=0)

    @event.listens_for(engine.sync_engine, "connect")
    def connected(connection: Any, _record: object) -> None:  # noqa: ANN401 - sqlite3 through aiosqlite
        # The driver's own idea of transactions begins them too late.
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in ("journal_mode=WAL", "synchronous=FULL", f"busy_timeout={_BUSY}"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def began(connection: Connection) -> None:
        # Who will write says so at once: two that read first and write then would end in deadlock.
        writes = connection.get_execution_options().get("writes")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _upgrade(connection: Connection) -> None:
    config = Config()
    config.set_main_option("script_location", "agent.api.database:migrations")
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


@asynccontextmanager
async def _translated() -> AsyncIterator[None]:
    try:
        yield
    except IntegrityError:
        raise
    except SQLAlchemyError as error:
        cause = getattr(error, "orig", None) or error
        raise DatabaseFailed(redacted(_first_line(cause))) from error
    except (OSError, TimeoutError) as error:
        raise DatabaseFailed(redacted(_first_line(error))) from error


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
