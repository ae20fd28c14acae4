"""Getting in: every kind of credential against a real broker, and what is said when it fails."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest
from nats.aio.client import Client

from agent.events.connection import Connection
from agent.settings import Nats
from tests.servers.certificates import Authority
from tests.servers.nats import NatsServer, nats_server
from tests.servers.nats_accounts import account, nkey_pair
from tests.waiting import PATIENCE

SECRET = "not-for-the-log"


@contextlib.asynccontextmanager
async def connecting(
    server: NatsServer | None = None, **settings: object
) -> AsyncIterator[Connection]:
    """A connection that is being made in the background, with these settings of [nats]."""
    given = {"url": server.url} if server is not None else {}
    connection = Connection(Nats.model_validate(given | settings), "here")

    async def session(_client: Client) -> None:
        connection.set_up()
        await asyncio.Event().wait()

    task = asyncio.create_task(connection.run(session))
    try:
        yield connection
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def is_ready(connection: Connection) -> None:
    async with asyncio.timeout(PATIENCE):
        while not connection.ready:
            await asyncio.sleep(0.01)


async def has_problem(connection: Connection, words: str) -> None:
    async with asyncio.timeout(PATIENCE):
        while words not in connection.problem:
            await asyncio.sleep(0.01)
    assert not connection.ready


def written(folder: Path, text: str, name: str = "secret") -> Path:
    file = folder / name
    file.write_text(text)
    return file


class _Way:
    """One way in: a server's configuration, and the right and wrong settings for it."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.authorization: Mapping[str, object] | None = None
        self.options: Mapping[str, object] = {}
        # Everything that must not be said.
        self.secrets = {SECRET, f"{SECRET}-wrong"}
        good, bad = written(folder, f"{SECRET}\n"), written(folder, f"{SECRET}-wrong", "wrong")
        if kind == "password":
            self.authorization = {"user": "agent", "password": SECRET}
            self.right: dict[str, object] = {"user": "agent", "password_file": good}
            self.wrong: dict[str, object] = {"user": "agent", "password_file": bad}
        elif kind == "token":
            self.authorization = {"token": SECRET}
            self.right, self.wrong = {"token_file": good}, {"token_file": bad}
        elif kind == "token of the environment":
            self.authorization = {"token": SECRET}
            self.right, self.wrong = {"token": SECRET}, {"token": f"{SECRET}-wrong"}
        elif kind == "nkey":
            pair, other = nkey_pair(), nkey_pair()
            self.authorization = {"users": [{"nkey": pair.public_key.decode()}]}
            self.right = {"nkey_file": written(folder, pair.seed.decode())}
            self.wrong = {"nkey_file": written(folder, other.seed.decode(), "wrong")}
            self.secrets |= {pair.seed.decode(), other.seed.decode()}
        else:
            ours, other_account = account(), account()
            self.options = ours.options
            self.right = {"creds_file": written(folder, ours.creds)}
            self.wrong = {"creds_file": written(folder, other_account.creds, "wrong")}
            self.secrets |= {
                word for word in (ours.creds + other_account.creds).split() if len(word) > 40
            }


KINDS = ("password", "token", "token of the environment", "nkey", "creds")


@pytest.mark.parametrize("kind", KINDS)
async def test_the_right_credentials_get_in(tmp_path: Path, kind: str) -> None:
    way = _Way(kind, tmp_path)
    with nats_server(tmp_path, authorization=way.authorization, options=way.options) as server:
        async with connecting(server, **way.right) as connection:
            await is_ready(connection)


@pytest.mark.parametrize("kind", KINDS)
async def test_the_wrong_credentials_are_said_to_be_refused(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    way = _Way(kind, tmp_path)
    with nats_server(tmp_path, authorization=way.authorization, options=way.options) as server:
        async with connecting(server, **way.wrong) as connection:
            await has_problem(connection, "Authorization Violation")
            assert "Authorization Violation" in caplog.text
            assert not [secret for secret in way.secrets if secret in caplog.text]
            assert SECRET not in caplog.text


async def test_a_rotated_secret_needs_no_restart(tmp_path: Path) -> None:
    file = written(tmp_path, "old")
    with nats_server(tmp_path, authorization={"token": SECRET}) as server:
        async with connecting(server, token_file=file) as connection:
            await has_problem(connection, "Authorization Violation")
            file.write_text(SECRET)
            await is_ready(connection)


@pytest.mark.parametrize(
    ("key", "content", "words"),
    [
        ("token_file", None, "No such file"),
        ("nkey_file", "SUANOTASEED", "no seed"),
        ("creds_file", "-----BEGIN NATS USER JWT-----\n", "no user's JWT and seed"),
        ("creds_file", f"-----BEGIN USER NKEY SEED-----\n{SECRET}\n-----END", "no user's JWT"),
        ("tls_ca", "no certificate", "tls_ca"),
    ],
)
async def test_a_file_that_is_no_credential_is_named(
    broker: NatsServer, tmp_path: Path, key: str, content: str | None, words: str
) -> None:
    file = tmp_path / "file"
    if content is not None:
        file.write_text(content)
    async with connecting(broker, **{key: file}) as connection:
        await has_problem(connection, words)
        assert key in connection.problem
        assert SECRET not in connection.problem


def _mutual_tls(folder: Path) -> tuple[Authority, dict[str, object]]:
    authority = Authority(folder)
    certificate = authority.issue("server")
    return authority, {
        "cert_file": str(certificate.cert),
        "key_file": str(certificate.key),
        "ca_file": str(authority.path),
        "verify": True,
    }


async def test_mutual_tls_gets_in(tmp_path: Path) -> None:
    authority, tls = _mutual_tls(tmp_path)
    own = authority.issue("agent")
    with nats_server(tmp_path, tls=tls) as server:
        keys = {"tls_ca": authority.path, "tls_cert": own.cert, "tls_key": own.key}
        async with connecting(server, **keys) as connection:
            await is_ready(connection)


async def test_without_a_certificate_mutual_tls_stays_shut(tmp_path: Path) -> None:
    authority, tls = _mutual_tls(tmp_path)
    with nats_server(tmp_path, tls=tls) as server:
        async with connecting(server, tls_ca=authority.path) as connection:
            # Depending on which end of the handshake is faster.
            async with asyncio.timeout(PATIENCE):
                while "client didn't provide a certificate" not in server.log:
                    await asyncio.sleep(0.01)
            assert not connection.ready


async def test_a_broker_of_another_authority_is_not_trusted(tmp_path: Path) -> None:
    _, tls = _mutual_tls(tmp_path)
    stranger = Authority(tmp_path, "stranger")
    with nats_server(tmp_path, tls=tls | {"verify": False}) as server:
        async with connecting(server, tls_ca=stranger.path) as connection:
            await has_problem(connection, "certificate verify failed")


async def test_no_secret_goes_to_a_broker_that_offers_no_tls(tmp_path: Path) -> None:
    heard = bytearray()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"auth_required":true,"max_payload":1048576}\r\n')
        while data := await reader.read(4096):
            heard.extend(data)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        token = written(tmp_path, SECRET)
        async with connecting(url=f"tls://127.0.0.1:{port}", token_file=token) as connection:
            await has_problem(connection, "does not offer it")
    assert not heard


async def test_a_broker_that_comes_later_is_found(tmp_path: Path) -> None:
    with nats_server(tmp_path) as server:
        server.kill()
        async with connecting(server) as connection:
            await has_problem(connection, "Connect call failed")
            server.start()
            await is_ready(connection)
            assert connection.problem == ""


async def test_a_broker_that_goes_is_found_again(broker: NatsServer) -> None:
    async with connecting(broker) as connection:
        await is_ready(connection)
        broker.kill()
        await has_problem(connection, "Connect call failed")
        broker.start()
        await is_ready(connection)


async def test_the_second_server_is_tried_when_the_first_is_away(broker: NatsServer) -> None:
    # Nobody listens on port 1.
    async with connecting(url=f"nats://127.0.0.1:1, {broker.url}") as connection:
        await is_ready(connection)
