"""The database is away, is not there, is not ours, or is made by two at once."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from tests.api_nodes import pod
from tests.api_servers import Api, api_in, in_database, postgres_settings
from tests.api_stages import Stage, stage_on
from tests.cli_process import run_cli
from tests.daemons import Tables
from tests.http import ask
from tests.servers.nats import NatsServer
from tests.servers.postgres import PostgresServer
from tests.waiting import eventually


@pytest.fixture
def own(
    broker: NatsServer, postgres: PostgresServer, postgres_database: str, tmp_path: Path
) -> Iterator[Stage]:
    """An API on a PostgreSQL that a test may do anything to."""
    settings = postgres_settings(postgres_database, postgres.password)
    with stage_on(broker, tmp_path, *settings) as made:
        yield made


def start_of(folder: Path, database: str, password: str = "") -> tuple[int, str]:
    """What an API exits with and says that cannot begin."""
    env = {"CHECKPOINT_AGENT_API__DATABASE_PASSWORD": password} if password else {}
    tables: Tables = {
        "api": {"database": database},
        "nats": {"url": "nats://127.0.0.1:1"},
    }
    api = Api(folder, tables, env)
    api.write_config()
    done = run_cli("api", "--config", str(api.config), env=env)
    assert done.stdout == ""
    return done.returncode, done.stderr


def test_a_stop_while_the_database_is_away(own: Stage, postgres: PostgresServer) -> None:
    postgres.kill()
    try:
        assert own.api.stop() == 0
    finally:
        postgres.start()


def test_a_database_that_was_killed_and_comes_back(own: Stage, postgres: PostgresServer) -> None:
    web = pod("web")
    with own.node(web, open_gate=False) as node:
        action_id = own.checkpoint(web)
        own.api.wait_state(action_id, "checkpoint_created")
        postgres.kill()
        for answer in (
            own.api.get("/v2/actions"),
            own.api.get(f"/v2/checkpoint/status/{action_id}"),
            own.api.get(f"/v2/actions/{action_id}/events"),
            own.api.post("/v2/checkpoint/pod", {"pod_id": web.ref.uid}),
            ask("POST", f"{own.api.url}/session", json={"token": own.api.token}),
        ):
            assert answer.status == 500
            error = answer.json()
            assert error["code"] == "500"
            assert error["message"].startswith("database: ")
            assert error["details"]["code"] == "database_failed"
            assert postgres.password not in answer.text
        ready = ask("GET", f"{own.api.url}/readyz")
        assert ready.status == 503
        assert [problem[:10] for problem in ready.json()["problems"]] == ["database: "]
        assert ask("GET", f"{own.api.url}/healthz").status == 200
        # What happens meanwhile is told by the broker later.
        node.let_go()
        eventually(lambda: node.engine.runs == [action_id], "the node going on")
        postgres.start()
        own.api.wait_ready()
        own.api.wait_state(action_id, "ready")
        own.ready(web)
        assert own.api.process is not None
        assert own.api.process.poll() is None
    assert postgres.password not in own.api.log.read_text()


def test_a_connection_that_was_ended_is_made_again(own: Stage, postgres: PostgresServer) -> None:
    assert own.api.get("/v2/actions").status == 200

    async def end_others(session: AsyncSession) -> None:
        await session.execute(
            text(
                # Returns when they have gone: what meets one that is just going may fail.
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        )

    for _ in range(3):
        in_database(own.api, end_others)
        assert own.api.get("/v2/actions").status == 200


def test_it_does_not_begin_without_its_database(
    postgres: PostgresServer, postgres_database: str, tmp_path: Path
) -> None:
    secret = "hunter2-hunter2"
    nobody = "postgresql://tester@127.0.0.1:1/x"
    unknown = f"{postgres_database}_unknown"
    for database, password, word in (
        (nobody, secret, "127.0.0.1"),
        (postgres_database, secret, "password"),
        (unknown, postgres.password, "does not exist"),
    ):
        code, said = start_of(tmp_path, database, password)
        assert code == 19, said
        assert "database: " in said
        assert word in said
        assert "check [api] database" in said
        assert "Traceback" not in said
        assert password not in said


def test_files_that_are_no_database(tmp_path: Path) -> None:
    folder, text_file, newer = tmp_path / "folder", tmp_path / "text", tmp_path / "newer.db"
    folder.mkdir()
    text_file.write_text("no database at all, " * 100)
    with closing(sqlite3.connect(newer)) as made:
        made.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
        made.execute("INSERT INTO alembic_version VALUES ('9999')")
        made.commit()
    for path, code, word in (
        (folder, 19, "unable to open"),
        (text_file, 19, "not a database"),
        (newer, 19, "another version of checkpoint-agent"),
        (text_file / "x" / "api.db", 2, "[api] database"),
    ):
        found, said = start_of(tmp_path, f"sqlite:///{path}")
        assert found == code, said
        assert word in said
        assert "Traceback" not in said
    # Left as it was.
    assert text_file.read_text().startswith("no database")


@pytest.fixture(params=["sqlite", "postgres"])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Tables, dict[str, str]]:
    """Settings and environment of a database that nobody has used yet."""
    if request.param == "sqlite":
        return {"api": {"database": f"sqlite:///{tmp_path}/new/api.db"}}, {}
    server: PostgresServer = request.getfixturevalue("postgres")
    return postgres_settings(request.getfixturevalue("postgres_database"), server.password)


def test_two_that_start_at_once_on_an_empty_database(
    empty: tuple[Tables, dict[str, str]], broker: NatsServer, tmp_path: Path
) -> None:
    with ExitStack() as stack, ThreadPoolExecutor(2) as pool:

        def start(name: str) -> Api:
            folder = tmp_path / name
            folder.mkdir()
            return stack.enter_context(api_in(folder, broker.url, *empty))

        apis = list(pool.map(start, ("one", "other")))
        for api in apis:
            api.wait_ready()
            # Each other's tokens as well.
            assert [each.get("/v2/actions", api.token).status for each in apis] == [200, 200]


def test_what_was_there_is_there_after_a_restart(stage: Stage) -> None:
    web = pod("web")
    with stage.node(web):
        action_id = stage.ready(web)
    before = stage.api.get(f"/v2/actions/{action_id}").json()
    assert stage.api.stop() == 0
    stage.api.start()
    stage.api.wait_ready()
    assert stage.api.get(f"/v2/actions/{action_id}").json() == before
    # In order: the next one need not wait for the lease of the one before.
    with stage.node(web):
        stage.ready(web)


def test_a_directory_that_is_not_there_is_made_for_its_user_alone(
    broker: NatsServer, tmp_path: Path
) -> None:
    folder = tmp_path / "new" / "deep"
    tables: Tables = {"api": {"database": f"sqlite:///{folder}/api.db"}}
    with api_in(tmp_path, broker.url, tables) as api:
        assert api.get("/v2/actions").json() == []
    assert folder.stat().st_mode & 0o777 == 0o700
