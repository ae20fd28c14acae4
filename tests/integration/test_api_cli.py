"""`checkpoint-agent api`: what it begins with, what it refuses, and the tokens of its users."""

from __future__ import annotations

import json
import ssl
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.api_servers import Api
from tests.cli_process import only_document, run_cli
from tests.daemons import Tables
from tests.http import ask
from tests.servers.certificates import Authority
from tests.servers.nats import NatsServer
from tests.servers.postgres import PostgresServer


@pytest.fixture
def api(tmp_path: Path) -> Api:
    """The settings of an API that does not run: tokens need only its database."""
    made = Api(tmp_path, {"nats": {"url": "nats://127.0.0.1:1"}})
    made.write_config()
    return made


def cli(api: Api, *words: str) -> subprocess.CompletedProcess[str]:
    return run_cli("api", *words, "--config", str(api.config), env=api.env)


def document(api: Api, *words: str, code: int = 0) -> Any:  # noqa: ANN401 - JSON
    done = cli(api, *words, "-o", "json")
    assert done.returncode == code, done
    return only_document(done.stdout)


def test_tokens_are_made_listed_and_revoked(api: Api) -> None:
    made = document(api, "token", "create", "ci", "--scope", "restore", "--scope", "read")
    assert made.keys() == {"token", "name", "scopes"}
    identity, secret = made["token"][4:16], made["token"][17:]
    assert made["token"] == f"cpa_{identity}_{secret}"
    listed = cli(api, "token", "list")
    assert listed.returncode == 0
    assert identity in listed.stdout
    assert "read restore" in listed.stdout
    assert secret not in listed.stdout
    (entry,) = document(api, "token", "list")
    assert entry["created"].endswith("Z")
    assert {**entry, "created": ""} == {
        "id": identity,
        "name": "ci",
        "scopes": ["read", "restore"],
        "created": "",
        "revoked": None,
    }
    assert document(api, "token", "revoke", identity) == {"id": identity, "revoked": True}
    # A second time does no harm.
    assert cli(api, "token", "revoke", identity).stdout == "Revoked.\n"
    assert document(api, "token", "list")[0]["revoked"].endswith("Z")


def test_a_token_alone_is_what_a_script_wants(api: Api) -> None:
    done = cli(api, "token", "create", "ci")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("cpa_")
    assert done.stdout.count("\n") == 1
    assert document(api, "token", "list")[0]["scopes"] == ["read", "checkpoint", "restore"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("create", "ci", "--scope", "admin"), "'admin' is none of read, checkpoint, restore"),
        (("create", ""), "1 to 128 printable characters"),
        (("create", "a\nb"), "1 to 128 printable characters"),
        (("create", "x" * 129), "1 to 128 printable characters"),
        (("create",), "NAME"),
        (("revoke", "000000000000"), "there is no token '000000000000'"),
        (("revoke",), "ID"),
    ],
)
def test_what_is_no_token(api: Api, words: tuple[str, ...], said: str) -> None:
    error = document(api, "token", *words, code=2)["error"]
    assert said in error["message"]
    assert error["exit_code"] == 2


def test_without_a_broker_it_does_not_begin(tmp_path: Path) -> None:
    api = Api(tmp_path)
    api.write_config()
    done = cli(api)
    assert done.returncode == 2
    assert "[nats] url: missing" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "api.db").exists()


def test_an_address_that_is_taken(broker: NatsServer, tmp_path: Path) -> None:
    taken = f"127.0.0.1:{broker.port}"
    api = Api(tmp_path, {"api": {"address": taken}, "nats": {"url": broker.url}})
    api.write_config()
    done = cli(api)
    assert done.returncode == 2
    assert f"cannot listen on {taken}" in done.stderr
    assert "Traceback" not in done.stderr


def test_its_settings_are_shown_without_secrets(tmp_path: Path) -> None:
    secret = "hunter2-hunter2"
    env = {
        "CHECKPOINT_AGENT_API__DATABASE_PASSWORD": secret,
        "CHECKPOINT_AGENT_NATS__TOKEN": secret,
    }
    api = Api(tmp_path, {"api": {"database": "postgresql://me@127.0.0.1/x"}}, env)
    api.write_config()
    done = cli(api, "--show-config")
    assert done.returncode == 0
    assert secret not in done.stdout + done.stderr
    shown = json.loads(done.stdout)
    assert shown["api"]["database"] == "postgresql://me@127.0.0.1/x"
    assert shown["api"]["address"] == "127.0.0.1:0"


def test_tokens_are_in_postgresql_and_its_password_may_be_in_a_file(
    postgres: PostgresServer, postgres_database: str, tmp_path: Path
) -> None:
    file = tmp_path / "password"
    file.write_text(f"{postgres.password}\n")
    tables: Tables = {"api": {"database": postgres_database, "database_password_file": str(file)}}
    api = Api(tmp_path, tables)
    api.write_config()
    made = document(api, "token", "create", "ci")
    assert [each["id"] for each in document(api, "token", "list")] == [made["token"][4:16]]
    file.unlink()
    done = cli(api, "token", "list")
    assert done.returncode == 2
    assert "[api] database_password_file" in done.stderr


def test_it_speaks_tls(broker: NatsServer, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    made = authority.issue("api")
    files: dict[str, object] = {"tls_cert": str(made.cert), "tls_key": str(made.key)}
    api = Api(tmp_path, {"api": files, "nats": {"url": broker.url}})
    try:
        api.start()
        api.token = api.make_token()
        trusting = ssl.create_default_context(cafile=str(authority.path))
        # By a name as well as by the address.
        port = api.address.rpartition(":")[2]
        for host in ("127.0.0.1", "localhost"):
            request = urllib.request.Request(
                f"https://{host}:{port}/session",
                data=json.dumps({"token": api.token}).encode(),
                headers={"Content-Type": "application/json"},
            )
            with urllib.request.urlopen(request, context=trusting, timeout=20) as answer:
                assert answer.status == 204
                assert "Secure" in answer.headers["Set-Cookie"]
        stranger = ssl.create_default_context()
        with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
            urllib.request.urlopen(f"https://{api.address}/healthz", context=stranger, timeout=20)
        # In the clear, nobody is served.
        with pytest.raises(OSError, match=r"onnection|closed|reset"):
            ask("GET", f"http://{api.address}/healthz")
        assert api.stop() == 0
    finally:
        api.kill()
