"""The PostgreSQL server that other tests use: it asks for a password, survives kill -9, leaves
nothing."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import psutil
import pytest

from tests.servers.postgres import PortTaken, PostgresServer, postgres_server
from tests.waiting import PATIENCE

# What a client may meet whose connection is gone: it depends on how far it had noticed.
LOST = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError)


@contextlib.asynccontextmanager
async def connected(
    server: PostgresServer, url: str
) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    client = await asyncpg.connect(url, password=server.password)
    try:
        yield client
    finally:
        client.terminate()


def shared_memory_creators() -> set[int]:
    """The processes that made the machine's segments of System V's shared memory."""
    lines = Path("/proc/sysvipc/shm").read_text().splitlines()
    return {int(line.split()[4]) for line in lines[1:]}


async def test_only_the_password_gets_in(
    postgres: PostgresServer,
    postgres_database: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    # What the machine's user may have for other servers.
    monkeypatch.delenv("PGPASSWORD", raising=False)
    monkeypatch.setenv("PGPASSFILE", str(tmp_path / "none"))
    assert postgres.password not in postgres_database
    async with connected(postgres, postgres_database) as client:
        assert await client.fetchval("SELECT current_database()") in postgres_database
    for password in (None, "", f"{postgres.password}-wrong"):
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(postgres_database, password=password)


async def test_databases_are_separate_and_can_be_dropped(
    postgres: PostgresServer, postgres_database: str
) -> None:
    other = postgres.new_database()
    async with connected(postgres, postgres_database) as one, connected(postgres, other) as two:
        await one.execute("CREATE TABLE things (id int)")
        assert await two.fetchval("SELECT to_regclass('things')") is None
        postgres.drop_database(other)
        with pytest.raises(LOST):
            await two.fetchval("SELECT 1")
        assert await one.fetchval("SELECT to_regclass('things')") == "things"
    with pytest.raises(asyncpg.InvalidCatalogNameError):
        await asyncpg.connect(other, password=postgres.password)


async def test_what_was_committed_survives_a_kill(
    postgres: PostgresServer, postgres_database: str
) -> None:
    async with connected(postgres, postgres_database) as client:
        await client.execute("CREATE TABLE things (id int)")
        await client.execute("INSERT INTO things SELECT generate_series(1, 1000)")
        postgres.kill()
        with pytest.raises(LOST):
            await client.fetchval("SELECT 1")
    with pytest.raises(OSError, match="Connect call failed"):
        await asyncpg.connect(postgres_database, password=postgres.password)
    postgres.start()
    async with connected(postgres, postgres_database) as client:
        assert await client.fetchval("SELECT count(*) FROM things") == 1000


async def test_a_start_on_a_port_that_is_taken(
    postgres: PostgresServer, postgres_database: str
) -> None:
    postgres.stop()
    with socket.socket() as taker:
        taker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taker.bind(("127.0.0.1", postgres.port))
        taker.listen()
        with pytest.raises(PortTaken):
            postgres.start()
    postgres.start()
    async with connected(postgres, postgres_database) as client:
        assert await client.fetchval("SELECT 1") == 1


@pytest.mark.root
@pytest.mark.parametrize("how", ["running", "stopped", "killed"])
async def test_nothing_is_left(how: str) -> None:
    before = set(psutil.Process().children(recursive=True))
    with postgres_server() as server:
        processes = set(psutil.Process().children(recursive=True)) - before
        async with connected(server, server.new_database()):
            if how == "stopped":
                server.stop()
            elif how == "killed":
                server.kill()
    assert len(processes) > 1
    for each in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            # Whoever inherited it may not have taken notice of its end yet.
            assert each.status() == psutil.STATUS_ZOMBIE
    assert not server.root.exists()
    assert not shared_memory_creators() & {each.pid for each in processes}
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE)


def test_a_start_that_fails_shows_the_log() -> None:
    with postgres_server() as server:
        server.stop()
        with (server.root / "data" / "postgresql.conf").open("a") as config:
            config.write("nonsense = 1\n")
        with pytest.raises(RuntimeError, match='unrecognized configuration parameter "nonsense"'):
            server.start()
