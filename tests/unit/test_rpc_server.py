"""Who may reach the server, and what it tells of itself: real sockets, real TLS."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from agent.errors import AlreadyExists, InvalidArgument
from agent.pb.checkpoint_agent.v1 import agent_pb2 as pb
from agent.pb.checkpoint_agent.v1 import inventory_pb2
from agent.pb.checkpoint_agent.v1.agent_pb2_grpc import AgentStub
from agent.rpc.server import MAX_REQUEST, SERVICE, Server
from agent.rpc.service import Service
from tests.rpc_servers import Running, running, settings_in, short_directory
from tests.waiting import eventually_async

if TYPE_CHECKING:
    pass

NOBODY = 65534
Health = health_pb2.HealthCheckResponse


@pytest.fixture
async def directory() -> AsyncIterator[Path]:
    """A short one, which only root can enter."""
    async with short_directory() as made:
        yield made


@pytest.fixture
async def agent(directory: Path) -> AsyncIterator[Running]:
    """A server on its unix socket."""
    async with running(settings_in(directory)) as made:
        yield made


# The unix socket


async def test_the_socket_is_roots_alone(directory: Path) -> None:
    os.chmod(directory, 0o755)
    settings = settings_in(directory, socket=directory / "new" / "agent.sock")
    before = os.umask(0)
    try:
        async with running(settings):
            status = settings.rpc.socket.lstat()
            assert stat.S_ISSOCK(status.st_mode)
            assert stat.S_IMODE(status.st_mode) == 0o600
            assert stat.S_IMODE(settings.rpc.socket.parent.stat().st_mode) == 0o755
            assert await _connect_as(NOBODY, settings.rpc.socket) == "PermissionError"
            assert await _connect_as(0, settings.rpc.socket) == "connected"
    finally:
        os.umask(before)


async def _connect_as(uid: int, path: Path) -> str:
    # The interpreter may lie where only root can execute it: the user changes after the imports.
    program = (
        "import os, socket, sys\n"
        "os.setgroups([]); os.setgid(int(sys.argv[1])); os.setuid(int(sys.argv[1]))\n"
        "try: socket.socket(socket.AF_UNIX).connect(sys.argv[2]); print('connected')\n"
        "except OSError as error: print(type(error).__name__)"
    )
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-I", "-S", "-c", program, str(uid), str(path)],
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip()


async def test_nothing_is_left_of_it(directory: Path) -> None:
    settings = settings_in(directory)
    async with running(settings):
        assert settings.rpc.socket.exists()
    assert set(os.listdir(directory)) == {"state", ".agent.sock.lock"}


async def test_a_dead_agents_socket_is_replaced(directory: Path) -> None:
    settings = settings_in(directory)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(settings.rpc.socket))
    (directory / ".agent.sock.new").mkdir()
    async with running(settings) as agent, agent.stub() as stub:
        assert (await stub.GetNodeInfo(pb.GetNodeInfoRequest())).node == "node"


async def test_a_live_agents_socket_is_left_alone(agent: Running, directory: Path) -> None:
    with pytest.raises(AlreadyExists, match=r"agent\.sock"):
        async with running(settings_in(directory, socket=agent.settings.rpc.socket)):
            pass
    async with agent.stub() as stub:
        assert (await stub.GetNodeInfo(pb.GetNodeInfoRequest())).node == "node"


async def test_another_programs_socket_is_left_alone(directory: Path) -> None:
    settings = settings_in(directory)
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(settings.rpc.socket))
        other.listen()
        with pytest.raises(AlreadyExists, match="program"):
            async with running(settings):
                pass
        assert settings.rpc.socket.is_socket()


async def test_a_socket_that_took_its_place_is_left_alone(directory: Path) -> None:
    settings = settings_in(directory)
    with socket.socket(socket.AF_UNIX) as other:
        async with running(settings):
            settings.rpc.socket.unlink()
            other.bind(str(settings.rpc.socket))
        assert settings.rpc.socket.is_socket()


async def test_a_file_in_its_place_is_left_alone(directory: Path) -> None:
    settings = settings_in(directory)
    settings.rpc.socket.write_text("mine")
    with pytest.raises(InvalidArgument, match="no socket"):
        async with running(settings):
            pass
    assert settings.rpc.socket.read_text() == "mine"


async def test_a_directory_that_others_may_write_to_is_refused(directory: Path) -> None:
    open_to_all = directory / "shared"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    with pytest.raises(InvalidArgument, match=r"rpc\.socket"):
        async with running(settings_in(directory, socket=open_to_all / "agent.sock")):
            pass


async def test_the_path_may_be_as_long_as_a_sockets_may_be(directory: Path) -> None:
    deep = directory / ("d" * (107 - len(str(directory)) - len("/") - len("/agent.sock")))
    settings = settings_in(directory, socket=deep / "agent.sock")
    assert len(str(settings.rpc.socket)) == 107
    async with running(settings) as agent, agent.stub() as stub:
        assert (await stub.GetNodeInfo(pb.GetNodeInfoRequest())).node == "node"


# What it tells of itself


async def test_health_follows_the_server(agent: Running) -> None:
    async with aio.insecure_channel(agent.address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for service in ("", SERVICE):
            answer = await stub.Check(health_pb2.HealthCheckRequest(service=service))
            assert answer.status == Health.SERVING
        with pytest.raises(aio.AioRpcError) as error:
            await stub.Check(health_pb2.HealthCheckRequest(service="other"))
        assert error.value.code() is grpc.StatusCode.NOT_FOUND
        seen: list[int] = []
        watching = asyncio.ensure_future(_watch_health(stub, seen))
        await eventually_async(lambda: seen == [Health.SERVING])
        await agent.server.drain()
        await eventually_async(lambda: seen == [Health.SERVING, Health.NOT_SERVING])
        watching.cancel()
        # Calls are served while the agent stops.
        assert await AgentStub(channel).GetNodeInfo(pb.GetNodeInfoRequest())


async def _watch_health(stub: health_pb2_grpc.HealthStub, seen: list[int]) -> None:
    async for answer in stub.Watch(health_pb2.HealthCheckRequest(service=SERVICE)):
        seen.append(answer.status)


async def test_it_is_not_serving_until_it_is_ready(agent: Running, directory: Path) -> None:
    settings = settings_in(directory, socket=directory / "second.sock")
    service = Service(settings, agent.executor, agent.freezes, _no_node)
    server = Server(service, settings.rpc)
    await server.start()
    try:
        async with aio.insecure_channel(f"unix:{settings.rpc.socket}") as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            for expected in (Health.NOT_SERVING, Health.SERVING):
                answer = await stub.Check(health_pb2.HealthCheckRequest(service=SERVICE))
                assert answer.status == expected
                await server.ready()
    finally:
        await server.stop(0)


async def _no_node() -> inventory_pb2.NodeInfo:
    raise AssertionError("nobody asks")


async def test_reflection_lists_and_describes_the_service(agent: Running) -> None:
    async with aio.insecure_channel(agent.address) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        requests = [
            reflection_pb2.ServerReflectionRequest(list_services=""),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol=SERVICE),
        ]
        answers = [answer async for answer in stub.ServerReflectionInfo(iter(requests))]
    names = {one.name for one in answers[0].list_services_response.service}
    assert {SERVICE, "grpc.health.v1.Health"} <= names
    assert any(
        b"VerifyCheckpoint" in file
        for file in answers[1].file_descriptor_response.file_descriptor_proto
    )


async def test_a_message_that_is_too_large_is_refused(agent: Running) -> None:
    async with agent.stub() as stub:
        with pytest.raises(aio.AioRpcError) as error:
            await stub.Thaw(pb.ThawRequest(freeze_id="x" * (MAX_REQUEST + 1)))
        assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert await stub.GetNodeInfo(pb.GetNodeInfoRequest())
