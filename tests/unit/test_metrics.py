"""Figures as a scraper sees them, and the server that shows them."""

from __future__ import annotations

import contextlib
import socket
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from urllib.error import HTTPError

import pytest
from prometheus_client.parser import text_string_to_metric_families

from agent.errors import InvalidArgument
from agent.metrics import Metrics, MetricsServer
from tests.waiting import eventually


@dataclass
class Served:
    """Metrics behind a server, and whether the daemon says it is well."""

    metrics: Metrics
    server: MetricsServer
    well: bool = True

    def get(self, path: str) -> str:
        """What is answered at ``path``."""
        with urllib.request.urlopen(f"http://{self.server.address}{path}", timeout=20) as answer:
            return str(answer.read().decode())

    def value(self, name: str, **labels: str) -> float | None:
        """One sample of a scrape."""
        for family in text_string_to_metric_families(self.get("/metrics")):
            for sample in family.samples:
                if sample.name == f"checkpoint_agent_{name}" and sample.labels == labels:
                    return sample.value
        return None


@pytest.fixture
def served() -> Iterator[Served]:
    metrics = Metrics("1.2.3")
    server = MetricsServer(
        "127.0.0.1:0",
        metrics.registry,
        healthy=lambda: found.well,
        refresh=lambda: metrics.queued.set(7),
    )
    found = Served(metrics, server)
    yield found
    server.close()


def test_a_scrape_shows_what_happened(served: Served) -> None:
    metrics = served.metrics
    metrics.state_reached("checkpoint_pod", "ready")
    metrics.state_reached("checkpoint_pod", "ready")
    metrics.state_reached("restore_pod", "error")
    metrics.frozen(0.07)
    metrics.frozen(30.5, 0.2)
    metrics.stored(bytes_raw=4_000_000, bytes_stored=1_000_000, wall_seconds=2.0)
    metrics.store_failed()
    metrics.running.set(2)
    metrics.outbox.set(5)
    metrics.broker_connected.set(1)
    assert served.value("actions_total", type="checkpoint_pod", state="ready") == 2
    assert served.value("actions_total", type="restore_pod", state="error") == 1
    assert served.value("frozen_seconds_bucket", le="0.05") == 0
    assert served.value("frozen_seconds_bucket", le="0.1") == 1
    assert served.value("frozen_seconds_count") == 2
    assert served.value("cuda_seconds_count") == 1
    assert served.value("cuda_seconds_bucket", le="0.25") == 1
    assert served.value("raw_bytes_total") == 4_000_000
    assert served.value("stored_bytes_total") == 1_000_000
    assert served.value("bytes_per_second_sum") == 2_000_000
    assert served.value("store_errors_total") == 1
    assert served.value("actions_running") == 2
    assert served.value("actions_queued") == 7
    assert served.value("outbox_events") == 5
    assert served.value("broker_connected") == 1
    assert served.value("build_info", version="1.2.3") == 1


def test_a_checkpoint_that_took_no_time_has_no_rate(served: Served) -> None:
    served.metrics.stored(bytes_raw=1, bytes_stored=1, wall_seconds=0.0)
    assert served.value("bytes_per_second_count") == 0


def test_two_daemons_in_one_process_share_no_figures(served: Served) -> None:
    Metrics("other").store_failed()
    assert served.value("store_errors_total") == 0


def test_health_is_what_the_daemon_says(served: Served) -> None:
    assert served.get("/healthz") == "ok\n"
    served.well = False
    with pytest.raises(HTTPError, match="503") as answer:
        served.get("/healthz")
    answer.value.close()


def test_other_paths_are_not_there(served: Served) -> None:
    with pytest.raises(HTTPError, match="404") as answer:
        served.get("/")
    answer.value.close()


def test_a_port_that_is_taken_is_an_error_with_a_name() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(InvalidArgument, match=rf"\[metrics\] address: .*{address}.*in use"):
            MetricsServer(
                address, Metrics("1").registry, healthy=lambda: True, refresh=lambda: None
            )


def test_a_silent_connection_delays_neither_scrapes_nor_the_end(served: Served) -> None:
    host, _, port = served.server.address.rpartition(":")
    with socket.create_connection((host, int(port))):
        assert served.value("store_errors_total") == 0


def test_silent_connections_take_only_so_many_threads(served: Served) -> None:
    host, _, port = served.server.address.rpartition(":")

    def answering(number: int) -> bool:
        names = [each.name for each in threading.enumerate()]
        return sum("process_request_thread" in name for name in names) == number

    with contextlib.ExitStack() as open_ones:
        # One after the other: few fit into the queue of those to be accepted.
        for number in range(1, 33):
            open_ones.enter_context(socket.create_connection((host, int(port))))
            eventually(partial(answering, number), "a thread for it")
        with socket.create_connection((host, int(port)), timeout=20) as one_more:
            assert one_more.recv(1) == b""
        assert answering(32)
    eventually(partial(answering, 0), "their ends")
    assert served.value("store_errors_total") == 0
