"""The table [api] of the configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.api.database.connection import describe
from agent.errors import InvalidArgument
from agent.settings import Api, load

EMPTY = Path("/dev/null")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config.toml"


def test_nothing_has_to_be_configured() -> None:
    api = load(EMPTY, {}).api
    assert api.address == "127.0.0.1:8800"
    assert api.database == "sqlite:////var/lib/checkpoint-agent/api.db"
    assert (api.node_lost_seconds, api.requests_per_second) == (300.0, 100.0)
    assert api.request_bytes == 2 << 20


def test_a_file_is_read_and_the_environment_goes_over_it(file: Path) -> None:
    file.write_text(
        '[api]\naddress = "[::1]:80"\ndatabase = "postgresql://me@db:5433/x"\n'
        "node_lost_seconds = 5\nrequest_bytes = 1024\n"
    )
    environ = {
        "CHECKPOINT_AGENT_API__ADDRESS": "localhost:81",
        "CHECKPOINT_AGENT_API__DATABASE_PASSWORD": "12345",
        "CHECKPOINT_AGENT_API__REQUESTS_PER_SECOND": "0.5",
    }
    api = load(file, environ).api
    assert (api.address, api.database) == ("localhost:81", "postgresql://me@db:5433/x")
    assert (api.node_lost_seconds, api.request_bytes) == (5.0, 1024)
    assert api.requests_per_second == 0.5
    assert api.database_password is not None
    assert api.database_password.get_secret_value() == "12345"
    assert "12345" not in api.model_dump_json()
    assert "12345" not in repr(api)


WRONG = {
    "unknown key": ("adress = '127.0.0.1:1'", "adress", "unknown key"),
    "no address": ('address = ""', "address", "at least 1"),
    "no port": ('address = "127.0.0.1"', "address", "HOST:PORT"),
    "everybody, in the clear": ('address = "0.0.0.0:80"', "address", "in the clear"),
    "everybody on IPv6": ('address = "[::]:80"', "address", "in the clear"),
    "a name, in the clear": ('address = "api.example:80"', "address", "in the clear"),
    "a name like loopback's": ('address = "localhost.evil.example:80"', "address", "the clear"),
    "certificate without key": ('tls_cert = "/c"', "tls_key", "go together"),
    "key without certificate": ('tls_key = "/k"', "tls_key", "go together"),
    "relative certificate": ('tls_cert = "c"\ntls_key = "/k"', "tls_cert", "absolute"),
    "relative file": ('database = "sqlite:///api.db"', "database", "sqlite:////ABSOLUTE/FILE"),
    "no file": ('database = "sqlite://"', "database", "sqlite:////ABSOLUTE/FILE"),
    "in memory": ('database = "sqlite:///:memory:"', "database", "sqlite:////ABSOLUTE/FILE"),
    "another database": ('database = "mysql://u@h/x"', "database", "postgresql://USER@HOST"),
    "another driver": ('database = "postgresql+psycopg://u@h/x"', "database", "postgresql://"),
    "no host": ('database = "postgresql:///x"', "database", "postgresql://USER@HOST"),
    "no name": ('database = "postgresql://u@h"', "database", "postgresql://USER@HOST"),
    "no database": ('database = ""', "database", "postgresql://USER@HOST"),
    "no port that is one": ('database = "postgresql://u@h:x/y"', "database", "postgresql://"),
    "password in the URL": (
        'database = "postgresql://u:hunter2@h/x"',
        "database",
        "must not contain a password",
    ),
    "password in the URL's query": (
        'database = "postgresql://u@h/x?password=hunter2"',
        "database",
        "must not contain",
    ),
    "password in the file": ('database_password = "hunter2"', "database_password", "a secret"),
    "lost at once": ("node_lost_seconds = 0", "node_lost_seconds", "greater than or equal to 1"),
    "never lost": ("node_lost_seconds = inf", "node_lost_seconds", "86400"),
    "no body": ("request_bytes = 1", "request_bytes", "1024"),
    "a gigabyte": ("request_bytes = 1073741824", "request_bytes", "67108864"),
    "no requests": ("requests_per_second = 0", "requests_per_second", "greater than 0"),
    "not a number": ("requests_per_second = nan", "requests_per_second", "1000000"),
    "text for yes": ('plain_http = "yes"', "plain_http", "boolean"),
}


@pytest.mark.parametrize(("text", "key", "reason"), WRONG.values(), ids=WRONG)
def test_a_mistake_is_named_by_file_table_and_key(
    file: Path, text: str, key: str, reason: str
) -> None:
    file.write_text(f"[api]\n{text}\n")
    with pytest.raises(InvalidArgument) as refused:
        load(file, {})
    assert refused.value.argument == f"{file}: [api] {key}"
    assert reason in refused.value.reason
    assert "hunter2" not in str(refused.value)


def test_two_passwords_are_one_too_many(file: Path) -> None:
    file.write_text('[api]\ndatabase_password_file = "/f"\n')
    with pytest.raises(InvalidArgument, match="given already") as refused:
        load(file, {"CHECKPOINT_AGENT_API__DATABASE_PASSWORD": "hunter2"})
    assert refused.value.argument == f"{file}: [api] database_password_file"
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        'address = "127.0.0.1:1"',
        'address = "127.8.9.10:1"',
        'address = "localhost:1"',
        'address = "[::1]:1"',
        'address = "0.0.0.0:1"\ntls_cert = "/c"\ntls_key = "/k"',
        'address = "0.0.0.0:1"\nplain_http = true',
    ],
)
def test_where_tokens_do_not_travel_in_the_clear(file: Path, text: str) -> None:
    file.write_text(f"[api]\n{text}\n")
    api = load(file, {}).api
    assert f'address = "{api.address}"' == text.partition("\n")[0]
    assert (api.plain_http, api.tls_cert is not None) == ("plain" in text, "tls" in text)


def test_a_log_names_the_database_without_its_user() -> None:
    assert describe(Api(database="postgresql://me@db:5433/x")) == "postgresql://db/x"
    assert describe(Api(database="sqlite:////var/x.db")) == "sqlite:////var/x.db"
