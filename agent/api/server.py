"""The process: what it consists of, in which order it begins and ends."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from typing import Final

import uvicorn
from starlette.types import ASGIApp

from agent import __version__
from agent.api.app import build
from agent.api.connections import Connection
from agent.api.database import Database, open_database
from agent.api.database.connection import describe
from agent.api.errors import DatabaseFailed
from agent.api.kept_pods import Keeper
from agent.api.metrics import ApiMetrics
from agent.api.parts import Parts
from agent.api.pod_restores import PodRestores
from agent.api.projector import Projector
from agent.api.sweeper import Sweeper
from agent.cluster import Kubernetes
from agent.cluster.pods import Pods
from agent.daemon.ending import Ending
from agent.daemon.eternal import EternalTasks
from agent.daemon.watchdog import Notifier
from agent.errors import InvalidArgument
from agent.events import Control
from agent.logs import get_logger
from agent.logs.lines import set_up
from agent.settings import Api, Settings

log = get_logger(__name__)

# Seconds for answers that are under way when it stops. The longest waits for the broker.
_DRAIN: Final = 8

# Seconds for a connection between two requests. Proxies keep theirs for 60 mostly: who ends it
# first must not be the one that is asked, or a request is lost on its way now and then.
_KEEP_ALIVE: Final = 75

# Objects that are new, until Python looks through them; a list of actions has some thousands. One
# look in twenty takes in those that outlived the last one, one in two thousand all.
_COLLECT_AFTER: Final = (10_000, 20, 100)

# Connections that wait to be accepted.
_BACKLOG: Final = 1024


def run(settings: Settings) -> int:
    """Serve until a signal ends it; returns what to exit with.

    Raises:
        AgentError: it could not begin.
    """
    set_up(settings.log.level, settings.log.format)
    if not settings.nats.servers:
        raise InvalidArgument("[nats] url", "missing: actions go to nodes through a broker")
    return asyncio.run(_live(settings))


async def _live(settings: Settings) -> int:
    ending = Ending()
    ending.listen()
    database = open_database(settings.api)
    tasks = EternalTasks(ending.fault)
    stack = AsyncExitStack()
    try:
        await database.migrate()
        listener = _listen(settings.api)
        control = Control(settings.nats, f"checkpoint-agent/api/{os.uname().nodename}")
        metrics = ApiMetrics(__version__)
        pods = await _pods(settings, database, control, metrics, stack)
        parts = Parts(settings, database, control, metrics, pods=pods)
        projector = Projector(database, control, metrics, pods.keeper if pods else None)
        tasks.start("broker", control.run())
        tasks.start("projector", projector.run())
        tasks.start("sweeper", Sweeper(parts).run())
        if pods is not None:
            tasks.start("keeper", pods.keeper.run())
            tasks.start("pods", pods.run())
        await _serve(settings.api, build(parts), listener, parts, ending)
        tasks.release()
        await tasks.stop()
        # Without a database the lease ends by itself.
        with suppress(DatabaseFailed):
            await projector.stop()
    finally:
        await tasks.stop()
        await stack.aclose()
        await database.close()
    log.info("stopped", exit_code=ending.exit_code)
    return ending.exit_code


async def _pods(
    settings: Settings,
    database: Database,
    control: Control,
    metrics: ApiMetrics,
    stack: AsyncExitStack,
) -> PodRestores | None:
    """None without access to Kubernetes.

    Raises:
        InvalidArgument: the access that is configured cannot be used.
    """
    if not settings.cluster.is_configured:
        return None
    connecting = Kubernetes.connect(settings.cluster, os.environ)
    pods = Pods(await stack.enter_async_context(connecting))
    keeper = Keeper(database, pods, settings.node.cluster)
    pending = settings.cluster.pending_seconds
    return PodRestores(database, control, metrics, pods, keeper, pending)


async def _serve(
    api: Api, app: ASGIApp, listener: socket.socket, parts: Parts, ending: Ending
) -> None:
    """Serve until it is asked to end; what is under way is answered then."""
    server = _Server(
        uvicorn.Config(
            app,
            http=Connection,
            log_config=None,
            access_log=False,
            server_header=False,
            lifespan="off",
            ssl_certfile=api.tls_cert,
            ssl_keyfile=api.tls_key,
            timeout_graceful_shutdown=_DRAIN,
            timeout_keep_alive=_KEEP_ALIVE,
            # Only the address of the connection counts; anybody could write such headers.
            proxy_headers=False,
        )
    )
    _collect_seldom()
    serving = asyncio.ensure_future(server.serve(sockets=[listener]))
    host, port = listener.getsockname()[:2]
    log.info("ready", address=f"{host}:{port}", database=describe(api), version=__version__)
    notifier = Notifier(os.environ)
    notifier.ready(f"http on {host}:{port}")
    asked = asyncio.ensure_future(ending.asked.wait())
    await asyncio.wait({serving, asked}, return_when=asyncio.FIRST_COMPLETED)
    notifier.stopping()
    parts.ending.set()
    server.should_exit = True
    await serving
    asked.cancel()


def _collect_seldom() -> None:
    """Have Python look for dead cycles in what is new, and hardly ever in all that there is.

    It stops everything meanwhile: 45 ms for what there is from the beginning, which stays, and 30
    for the pods of a thousand nodes; that was one in a hundred lists.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECT_AFTER)


class _Server(uvicorn.Server):
    """uvicorn's, without its own idea of signals."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are Ending's."""
        yield


def _listen(api: Api) -> socket.socket:
    """Raises InvalidArgument: nobody can listen there."""
    host, _, port = api.address.rpartition(":")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        made = socket.create_server((host.strip("[]"), int(port)), family=family, backlog=_BACKLOG)
    except OSError as error:
        reason = f"cannot listen on {api.address}: {error.strerror or error}"
        raise InvalidArgument("[api] address", reason) from error
    # Head and body of an answer are two packets. The second would wait for the client to confirm
    # the first one, which takes it 40 ms; accepted connections inherit this.
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made
