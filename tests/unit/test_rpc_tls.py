"""TCP, which is for holders of certificates alone: real TLS with real clients."""

from __future__ import annotations

import logging
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest
from grpc import aio

from agent.errors import AgentError, InvalidArgument
from agent.pb.checkpoint_agent.v1 import agent_pb2 as pb
from agent.pb.checkpoint_agent.v1.agent_pb2_grpc import AgentStub
from agent.settings import Rpc, Settings
from tests.rpc_servers import (
    Certificates,
    Running,
    certificates_in,
    running,
    settings_in,
    short_directory,
)
from tests.servers.certificates import Authority

if TYPE_CHECKING:
    from agent.pb.checkpoint_agent.v1.agent_pb2_grpc import AgentAsyncStub


@pytest.fixture
async def directory() -> AsyncIterator[Path]:
    """A short one, which only root can enter."""
    async with short_directory() as made:
        yield made


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    """For mutual TLS."""
    return certificates_in(tmp_path)


async def test_tcp_takes_a_client_with_a_certificate_and_says_who_it_is(
    directory: Path, certificates: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    settings = settings_in(directory, **certificates.rpc())
    async with running(settings) as agent, Tcp(agent, certificates.credentials()) as stub:
        await stub.GetNodeInfo(pb.GetNodeInfoRequest())
        with pytest.raises(aio.AioRpcError):
            await stub.Thaw(pb.ThawRequest(freeze_id="nothing"))
    assert "operator.test" in caplog.text


async def test_tcp_refuses_everybody_else(directory: Path, certificates: Certificates) -> None:
    elsewhere = directory / "elsewhere"
    elsewhere.mkdir()
    stranger = Authority(elsewhere).issue("operator.test")
    nobody = grpc.ssl_channel_credentials(certificates.authority.path.read_bytes())
    settings = settings_in(directory, **certificates.rpc())
    async with running(settings) as agent:
        for credentials in (None, nobody, certificates.credentials(stranger)):
            async with Tcp(agent, credentials) as stub:
                with pytest.raises(aio.AioRpcError) as error:
                    await stub.GetNodeInfo(pb.GetNodeInfoRequest(), timeout=20)
                assert error.value.code() is grpc.StatusCode.UNAVAILABLE
        async with Tcp(agent, certificates.credentials()) as stub:
            assert (await stub.GetNodeInfo(pb.GetNodeInfoRequest())).node == "node"


async def test_renewed_certificates_count_for_new_connections(
    directory: Path, certificates: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    settings = settings_in(directory, **certificates.rpc())
    renewed = directory / "renewed"
    renewed.mkdir()
    other = Authority(renewed)
    client = other.issue("operator.test")
    known = certificates.credentials()
    late = certificates.credentials(client)
    async with running(settings) as agent:
        assert await _is_let_in(agent, known)
        assert not await _is_let_in(agent, late)
        original = certificates.server.key.read_bytes()
        certificates.server.key.write_text("half-written")
        assert await _is_let_in(agent, known)
        assert "cannot be used" in caplog.text
        certificates.server.key.write_bytes(original)
        other.path.replace(certificates.authority.path)
        assert await _is_let_in(agent, late)
        assert not await _is_let_in(agent, known)


async def _is_let_in(agent: Running, credentials: grpc.ChannelCredentials) -> bool:
    async with Tcp(agent, credentials) as stub:
        try:
            await stub.GetNodeInfo(pb.GetNodeInfoRequest(), timeout=20)
        except aio.AioRpcError:
            return False
    return True


class Tcp:
    """A client on the TCP port; without credentials one that speaks plaintext."""

    def __init__(self, agent: Running, credentials: grpc.ChannelCredentials | None) -> None:
        address = f"127.0.0.1:{agent.server.port}"
        if credentials is None:
            self._channel = aio.insecure_channel(address)
        else:
            # Of its own: channels that look alike share a connection otherwise.
            alone = (("grpc.use_local_subchannel_pool", 1),)
            self._channel = aio.secure_channel(address, credentials, options=alone)

    async def __aenter__(self) -> AgentAsyncStub:
        return AgentStub(self._channel)

    async def __aexit__(self, *_: object) -> None:
        await self._channel.close(None)


@pytest.mark.parametrize("missing", ["tls_cert", "tls_key", "tls_client_ca"])
async def test_tcp_without_all_of_mutual_tls_is_refused(
    directory: Path, certificates: Certificates, missing: str
) -> None:
    # As a setting it does not pass agent.settings either: this is the server's own check.
    values = {**certificates.rpc(), "socket": directory / "agent.sock", missing: None}
    rpc = Rpc.model_construct(**values)  # type: ignore[arg-type]
    settings = settings_in(directory).model_copy(update={"rpc": rpc})
    await _refused(settings, f"rpc.{missing}")


async def test_certificates_that_cannot_be_used_are_named(
    directory: Path, certificates: Certificates
) -> None:
    other = certificates.authority.issue("other.test")
    garbage = directory / "garbage.pem"
    garbage.write_text("this is no certificate")
    for setting, path, named in (
        ("tls_cert", directory / "nowhere.pem", "rpc.tls_cert"),
        ("tls_cert", garbage, "rpc.tls_cert"),
        ("tls_key", other.key, "rpc.tls_cert"),
        ("tls_key", directory, "rpc.tls_key"),
        ("tls_client_ca", garbage, "rpc.tls_client_ca"),
    ):
        await _refused(settings_in(directory, **{**certificates.rpc(), setting: path}), named)


async def test_a_port_that_is_taken_is_named(directory: Path, certificates: Certificates) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        await _refused(
            settings_in(directory, **{**certificates.rpc(), "address": address}), "rpc.address"
        )


async def _refused(settings: Settings, argument: str) -> None:
    with pytest.raises(AgentError) as error:
        async with running(settings):
            pass
    assert isinstance(error.value, InvalidArgument)
    assert error.value.argument == argument
    assert not settings.rpc.socket.exists()
