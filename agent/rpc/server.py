"""The gRPC server: a unix socket for root, TCP for holders of certificates, health, reflection."""

from __future__ import annotations

from typing import Final

from google.protobuf.descriptor import ServiceDescriptor
from grpc import aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from agent.errors import InvalidArgument
from agent.logs import get_logger
from agent.pb.checkpoint_agent.v1 import agent_pb2
from agent.pb.checkpoint_agent.v1.agent_pb2_grpc import add_AgentServicer_to_server
from agent.rpc.interceptor import Guard
from agent.rpc.server_tls import server_credentials
from agent.rpc.service import Service
from agent.rpc.unix_socket import UnixSocket
from agent.settings import Rpc

_DESCRIPTOR: Final[ServiceDescriptor] = agent_pb2.DESCRIPTOR.services_by_name["Agent"]
SERVICE: Final = _DESCRIPTOR.full_name

# Requests are names and numbers: agent.messages takes 256 KiB, this leaves room for the envelope.
MAX_REQUEST: Final = 1 << 20
# A list of ten thousand checkpoints takes 5 MiB.
MAX_ANSWER: Final = 64 << 20

_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MAX_REQUEST),
    ("grpc.max_send_message_length", MAX_ANSWER),
    # A client that went without a word is noticed after 50 s; its waiting action is given up.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    # Two agents that share a port would each get half of the calls, without a word.
    ("grpc.so_reuseport", 0),
)

_log = get_logger(__name__)


class Server:
    """One start, one stop. All methods belong to the event loop it was made on."""

    def __init__(self, service: Service, settings: Rpc) -> None:
        self.service = service
        self._settings = settings
        self._health = health.aio.HealthServicer()  # type: ignore[attr-defined]
        self._socket: UnixSocket | None = None
        self._server: aio.Server | None = None
        #: The TCP port, where one was asked for; the system chooses it for port 0.
        self.port: int | None = None

    async def start(self) -> None:
        """Listen and answer; health says NOT_SERVING until :meth:`ready`.

        Raises:
            AlreadyExists: another agent listens at the socket.
            InvalidArgument: a setting of [rpc] is missing or cannot be used; names it.
        """
        self._socket = UnixSocket(self._settings.socket)
        try:
            self._server = server = self._make()
            await self._set_health(health_pb2.HealthCheckResponse.NOT_SERVING)
            server.add_insecure_port(self._socket.address)
            if self._settings.address:
                self.port = self._listen_tcp(server)
            await server.start()
            self._socket.publish()
        except BaseException:
            await self.stop(0)
            raise
        _log.info("listening", socket=str(self._settings.socket), port=self.port)

    async def ready(self) -> None:
        """Tell health checks that calls are served."""
        await self._set_health(health_pb2.HealthCheckResponse.SERVING)

    async def drain(self) -> None:
        """Tell health checks that the agent is going; calls are still served."""
        await self._health.enter_graceful_shutdown()

    async def stop(self, grace_seconds: float) -> None:
        """Take no more calls, end those under way after the time given, remove the socket.

        Clients that wait for an action are cut off, and it goes on: stop the executor before.
        """
        await self.drain()
        self.service.background.stop()
        if self._server is not None:
            await self._server.stop(grace_seconds)
        await self.service.close()
        if self._socket is not None:
            self._socket.remove()
        self._server = self._socket = None

    def _make(self) -> aio.Server:
        server = aio.server(interceptors=[Guard()], options=_OPTIONS)
        add_AgentServicer_to_server(self.service, server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        reflection.enable_server_reflection(
            [SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME], server
        )
        return server

    def _listen_tcp(self, server: aio.Server) -> int:
        wanted = self._settings
        credentials = server_credentials(wanted.tls_cert, wanted.tls_key, wanted.tls_client_ca)
        try:
            return server.add_secure_port(wanted.address, credentials)
        except RuntimeError as error:
            reason = f"cannot listen at {wanted.address}: is it taken, and an address of this host?"
            raise InvalidArgument("rpc.address", reason) from error

    async def _set_health(self, status: health_pb2.HealthCheckResponse.ServingStatus) -> None:
        for name in (health.OVERALL_HEALTH, SERVICE):
            await self._health.set(name, status)
