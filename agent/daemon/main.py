"""The daemon from its first line to its last: the one place that knows all parts and their order.

Readiness is told when everything that others may ask for answers. An end goes the other way round:
nothing new, nothing frozen, what runs finishes or is rolled back, what happened is told, and only
then do the parts go that were needed for it.
"""

from __future__ import annotations

import asyncio
import faulthandler
import os
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

from agent import __version__
from agent.actions import Engine, Executor, Freezes, PodRestores
from agent.config import Tools, find_tools
from agent.daemon.ending import FAULT, Ending
from agent.daemon.eternal import EternalTasks
from agent.daemon.gpus import NodeGpus
from agent.daemon.leftovers import clear_leftovers
from agent.daemon.lock import sole_daemon
from agent.daemon.node import Node
from agent.daemon.pulse import is_alive
from agent.daemon.upkeep import Upkeep
from agent.daemon.watchdog import Notifier, heartbeat, watchdog_seconds
from agent.errors import InvalidArgument, StoreFailed
from agent.events import Events
from agent.host.cuda import Cuda
from agent.host.facts import host_facts
from agent.logs import get_logger
from agent.logs.lines import set_up
from agent.manifest import Host
from agent.metrics import Metrics, MetricsServer
from agent.rpc.server import Server
from agent.rpc.service import Service
from agent.runtime import ActionReporter, RestoreServer
from agent.settings import Settings
from agent.store import open_store

log = get_logger(__name__)

# Seconds for a broker that is there: who starts the daemon and publishes then finds the streams.
# One that is away is waited for afterwards, beside all that works without it.
BROKER_SECONDS = 3.0

# Seconds for the last events. A broker that is there takes thousands in that time; what is left
# goes out after the next start.
FLUSH_SECONDS = 5.0

# Seconds for answers of calls that are no actions, when no action is left.
RPC_SECONDS = 2.0

# Seconds that a scrape waits for figures from the event loop. Prometheus gives up after 10.
COUNT_SECONDS = 5.0

# Seconds after which a loop that does not answer hangs. A readiness probe waits for 5
# (deploy/kubernetes).
HEALTH_SECONDS = 4.0

# Threads for each action, and for all the rest (gRPC's reads, the inventory). As many containers
# come back into pods beside them. asyncio's default is the number of cores plus 4: a few that wait
# for their stores would hold up all others. They are made when they are needed; a checkpoint that
# stores, or has tasks frozen, has threads of its own.
THREADS_PER_ACTION, OTHER_THREADS = 8, 16


def run(settings: Settings) -> int:
    """Be the daemon until a signal ends it; returns what to exit with (docs/daemon.md).

    Raises:
        AgentError: it could not begin.
    """
    set_up(settings.log.level, settings.log.format)
    # When the watchdog ends a daemon that hangs, the log says where.
    faulthandler.enable()
    with sole_daemon(settings.state_dir):
        return asyncio.run(_live(settings))


async def _live(settings: Settings) -> int:
    ending = Ending()
    ending.listen()
    threads = OTHER_THREADS + 2 * THREADS_PER_ACTION * settings.checkpoint.concurrency
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(threads))
    _check_stores(settings)
    tools = find_tools()
    # A node is there for its containers: better told at its start than at the first of them.
    tools.require_runc()
    daemon = Daemon(settings, tools, ending)
    try:
        await daemon.start()
        await ending.asked.wait()
    finally:
        await daemon.stop()
    return ending.exit_code


class Daemon:
    """One start, one stop; stop() also after a start that failed half-way."""

    def __init__(self, settings: Settings, tools: Tools, ending: Ending) -> None:
        self._settings, self._tools, self._ending = settings, tools, ending
        self._loop = asyncio.get_running_loop()
        self._notifier = Notifier(os.environ)
        self._tasks = EternalTasks(ending.fault)
        self._metrics = Metrics(__version__)
        self._pod_restores = PodRestores()
        self._cuda = Cuda()
        engine = Engine(settings, tools, self._pod_restores, self._cuda)
        self._executor = Executor(settings, engine, self._metrics)
        self._freezes = Freezes(
            state_dir=settings.state_dir,
            runc_roots=settings.pods.runc_roots,
            limit_seconds=settings.rpc.freeze_limit_seconds,
        )
        self._upkeep = Upkeep(settings, self._executor, self._metrics)
        self._server: Server | None = None
        self._restores: RestoreServer | None = None
        self._events: Events | None = None
        self._metrics_server: MetricsServer | None = None
        self._serving = False

    async def start(self) -> None:
        """Thaw and settle what a dead daemon has left, then serve."""
        settings = self._settings
        if settings.metrics.address:
            self._metrics_server = MetricsServer(
                settings.metrics.address,
                self._metrics.registry,
                healthy=self._is_well,
                refresh=self._refresh,
            )
            log.info("metrics", address=self._metrics_server.address)
        await self._executor.start()
        host = await host_facts(self._tools)
        await self._answer(host)
        self._tasks.start("leftovers", clear_leftovers(self._tools, settings.state_dir))
        if seconds := watchdog_seconds(os.environ):
            beating = heartbeat(self._notifier, seconds, self._executor.outbox.depth)
            self._tasks.start("watchdog", beating)
        self._upkeep.start(self._tasks)
        if self._server is not None:
            await self._server.ready()
        self._serving = True
        self._notifier.ready(f"node {settings.node.name} of {settings.node.cluster}")
        log.info(
            "ready",
            version=__version__,
            cluster=settings.node.cluster,
            node=settings.node.name,
            criu=host.criu,
            runc=host.runc,
        )

    async def _answer(self, host: Host) -> None:
        """Whoever may ask or bring actions."""
        settings = self._settings
        gpus = NodeGpus(self._cuda)
        self._tasks.start("gpus", gpus.run())
        node = Node(settings, host, lambda: (self._executor.running, self._executor.queued), gpus)
        service = Service(
            settings, self._executor, self._freezes, lambda: asyncio.to_thread(node.info)
        )
        self._server = Server(service, settings.rpc)
        await self._server.start()
        if (socket := settings.restore_socket) is not None:
            reporter = ActionReporter(self._executor, self._pod_restores)
            self._restores = RestoreServer(settings, socket, self._tools, self._cuda, reporter)
            await self._restores.start()
        if settings.nats.url:
            self._events = Events(settings, self._executor, node.info)
            self._tasks.start("events", self._events.run())
            await self._events.wait_ready(BROKER_SECONDS)

    async def stop(self) -> None:
        """Stop in order. What fails is logged, and the rest is done all the same."""
        # A daemon that has to end for a fault of its own is started again: the node stays.
        told = self._serving and self._ending.exit_code != FAULT
        self._serving = False
        self._tasks.release()
        self._notifier.stopping()
        if self._server is not None:
            await self._step("draining calls", self._server.drain())
        if self._events is not None:
            await self._step("leaving the broker's list", self._events.pause())
        await self._step("thawing what callers froze", self._freezes.stop())
        if told:
            await self._step("draining pods", self._upkeep.finish(self._ending.hurried))
        # For both together: a service manager waits for the sum of all times.
        until = self._loop.time() + self._settings.stop_seconds
        if self._restores is not None:
            ending = self._stop_in_time(self._restores.stop, until)
            await self._step("ending restores into pods", ending)
        await self._step("stopping actions", self._stop_in_time(self._executor.stop, until))
        if self._events is not None:
            seconds = FLUSH_SECONDS if self._events.ready else 0.0
            await self._step("flushing events", self._events.stop(seconds))
        if self._server is not None:
            await self._step("ending calls", self._server.stop(RPC_SECONDS))
        await self._step("stopping tasks", self._tasks.stop())
        if self._metrics_server is not None:
            await self._step("closing metrics", asyncio.to_thread(self._metrics_server.close))
        await self._step("closing the journal", self._executor.close())
        await self._step("letting go of the GPU driver", self._cuda.aclose())
        log.info("stopped", exit_code=self._ending.exit_code)

    async def _stop_in_time(self, stop: Callable[[float], Awaitable[None]], until: float) -> None:
        """Let what runs finish in the time there is, or until somebody is in a hurry."""
        stopping = asyncio.ensure_future(stop(max(0.0, until - self._loop.time())))
        hurried = asyncio.ensure_future(self._ending.hurried.wait())
        await asyncio.wait({stopping, hurried}, return_when=asyncio.FIRST_COMPLETED)
        hurried.cancel()
        if not stopping.done():
            await stop(0)
        await stopping

    async def _step(self, what: str, work: Awaitable[object]) -> None:
        try:
            await work
        except Exception:
            log.exception("failed while stopping; the rest is stopped all the same", step=what)
            self._ending.exit_code = FAULT

    def _is_well(self) -> bool:
        """Whether it serves, and its loop does not hang. For a thread: it waits for the loop."""
        return self._serving and is_alive(self._loop, HEALTH_SECONDS)

    def _refresh(self) -> None:
        """Take over figures that others count. For a thread: a scrape waits for the loop."""
        if not self._serving:
            return
        counting = asyncio.run_coroutine_threadsafe(self._count(), self._loop)
        try:
            counting.result(COUNT_SECONDS)
        except (TimeoutError, StoreFailed) as error:
            counting.cancel()
            log.warning("some metrics are as they were before", reason=str(error) or "timeout")

    async def _count(self) -> None:
        self._metrics.running.set(self._executor.running)
        self._metrics.queued.set(self._executor.queued)
        connected = self._events is not None and self._events.ready
        self._metrics.broker_connected.set(1 if connected else 0)
        self._metrics.outbox.set(await self._executor.outbox.depth())


def _check_stores(settings: Settings) -> None:
    """Raises InvalidArgument now rather than at the first checkpoint."""
    urls = {"[storage] store": [settings.storage.store], "[storage] roots": settings.storage.roots}
    for argument, those in urls.items():
        for url in those:
            try:
                open_store(url)
            except InvalidArgument as error:
                raise InvalidArgument(argument, error.reason) from error
