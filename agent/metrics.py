"""Figures for Prometheus, and the small HTTP server on a local port that shows them.

Names begin with ``checkpoint_agent_``; sizes are in bytes, times in seconds. docs/daemon.md lists
them.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING
from wsgiref.simple_server import WSGIRequestHandler, make_server

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    make_wsgi_app,
)
from prometheus_client.exposition import ThreadingWSGIServer

from agent.errors import InvalidArgument

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

_Application = Callable[["WSGIEnvironment", "StartResponse"], Iterable[bytes]]

_Request = socket.socket | tuple[bytes, socket.socket]

PREFIX = "checkpoint_agent_"

# From a container that fits into a few pages to the minute after which users call it an outage.
FROZEN_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

# Raw bytes per second of a whole checkpoint: from a slow disk to what CRIU gives on a big machine.
RATE_BUCKETS = (1e7, 3e7, 1e8, 3e8, 1e9, 3e9, 1e10)

# Seconds for one request: whoever connects and says nothing keeps no thread.
_REQUEST_TIMEOUT = 10

# Requests at once, each with a thread and a descriptor. Prometheus and a kubelet need two; whoever
# may connect to this port should not be able to take all descriptors from checkpoints.
_MOST_REQUESTS = 32


class Metrics:
    """One daemon's figures, in a registry of their own. Safe to use from any thread."""

    def __init__(self, version: str) -> None:
        self.registry = to = CollectorRegistry()
        self._actions = Counter(
            f"{PREFIX}actions", "Actions that came into this state", ["type", "state"], registry=to
        )
        self.running = Gauge(f"{PREFIX}actions_running", "Actions being worked on", registry=to)
        self.queued = Gauge(f"{PREFIX}actions_queued", "Actions waiting", registry=to)
        self._frozen = Histogram(
            f"{PREFIX}frozen_seconds", "Of containers", buckets=FROZEN_BUCKETS, registry=to
        )
        self._cuda = Histogram(
            f"{PREFIX}cuda_seconds", "Of that, by GPUs", buckets=FROZEN_BUCKETS, registry=to
        )
        self._raw = Counter(f"{PREFIX}raw_bytes", "Bytes captured", registry=to)
        self._stored = Counter(f"{PREFIX}stored_bytes", "Bytes written to stores", registry=to)
        self._rate = Histogram(
            f"{PREFIX}bytes_per_second",
            "Bytes captured in a checkpoint by the time it took as a whole",
            buckets=RATE_BUCKETS,
            registry=to,
        )
        self.outbox = Gauge(f"{PREFIX}outbox_events", "Events not confirmed yet", registry=to)
        self._store_errors = Counter(
            f"{PREFIX}store_errors", "Actions that failed for their store", registry=to
        )
        self.broker_connected = Gauge(
            f"{PREFIX}broker_connected", "1 while there is a broker", registry=to
        )
        Info(f"{PREFIX}build", "Which agent this is", registry=to).info({"version": version})
        # Memory, processor time, open files of this process.
        ProcessCollector(registry=to)

    def state_reached(self, kind: str, state: str) -> None:
        """An action of this type came into this state."""
        self._actions.labels(kind, state).inc()

    def frozen(self, seconds: float, cuda_seconds: float = 0.0) -> None:
        """Containers stood still for so long, a part of it for their GPUs, if they use any."""
        self._frozen.observe(seconds)
        if cuda_seconds:
            self._cuda.observe(cuda_seconds)

    def stored(self, *, bytes_raw: int, bytes_stored: int, wall_seconds: float) -> None:
        """A checkpoint became durable."""
        self._raw.inc(bytes_raw)
        self._stored.inc(bytes_stored)
        if wall_seconds > 0:
            self._rate.observe(bytes_raw / wall_seconds)

    def store_failed(self) -> None:
        """A store could not read or write, and an action failed for it."""
        self._store_errors.inc()


class MetricsServer:
    """GET /metrics, and /healthz: 200 while the daemon is well and 503 when it is not."""

    def __init__(
        self,
        address: str,
        registry: CollectorRegistry,
        *,
        healthy: Callable[[], bool],
        refresh: Callable[[], None],
    ) -> None:
        """Listen on HOST:PORT; port 0 takes a free one.

        Args:
            refresh: called before each scrape, in a thread of the server's.

        Raises:
            InvalidArgument: nobody can listen there.
        """
        host, _, port = address.rpartition(":")
        host = host.strip("[]")
        metrics: _Application = make_wsgi_app(registry)

        def application(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
            if environ["PATH_INFO"] == "/healthz":
                return _health(start, well=healthy())
            if environ["PATH_INFO"] != "/metrics":
                start("404 Not Found", [("Content-Type", "text/plain")])
                return [b"/metrics or /healthz\n"]
            refresh()
            return metrics(environ, start)

        kind = _Server6 if ":" in host else _Server
        try:
            self._server = make_server(host, int(port), application, kind, _Handler)
        except OSError as error:
            reason = f"cannot listen on {address}: {error.strerror or error}"
            raise InvalidArgument("[metrics] address", reason) from error
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="metrics", daemon=True
        )
        self._thread.start()

    @property
    def address(self) -> str:
        """HOST:PORT that it listens on."""
        host, port = self._server.server_address[:2]
        return f"[{host!s}]:{port}" if ":" in str(host) else f"{host!s}:{port}"

    def close(self) -> None:
        """Stop listening; returns when the thread has ended."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _health(start: StartResponse, *, well: bool) -> Iterable[bytes]:
    start("200 OK" if well else "503 Service Unavailable", [("Content-Type", "text/plain")])
    return [b"ok\n" if well else b"not ready\n"]


class _Server(ThreadingWSGIServer):
    daemon_threads = True
    # Closing waits for no scraper that went to sleep.
    block_on_close = False

    def server_activate(self) -> None:
        """Listen."""
        self._free = threading.Semaphore(_MOST_REQUESTS)
        super().server_activate()

    def process_request(self, request: _Request, client_address: object) -> None:
        """In a thread of its own; hung up on where there are too many."""
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._free.release()
            raise

    def process_request_thread(self, request: _Request, client_address: object) -> None:
        """To its end."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Handler(WSGIRequestHandler):
    timeout = _REQUEST_TIMEOUT

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: a line per scrape says nothing."""
