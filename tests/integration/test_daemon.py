"""The daemon as a process: it begins, tells the service manager, serves, and ends in order."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from agent.rpc.channel import Tls
from agent.rpc.client import connect
from bench.reports import wait_until
from tests.cli_process import only_document, run_cli
from tests.daemons import Daemon, daemon_in, open_descriptors

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="the daemon needs root"),
]

MIB = 1 << 20


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    """Not started yet; sees no pods of this machine."""
    with daemon_in(tmp_path, {"pods": {"runc_roots": [str(tmp_path / "runc")]}}) as made:
        yield made


def test_it_is_ready_serves_and_leaves_nothing(daemon: Daemon) -> None:
    daemon.start()
    daemon.wait_ready()
    assert daemon.process is not None
    pid = daemon.process.pid
    assert daemon.socket.stat().st_mode & 0o777 == 0o600
    assert daemon.state_dir.stat().st_mode & 0o777 == 0o700
    assert daemon.get("/healthz") == "ok\n"
    assert "checkpoint_agent_build_info" in daemon.get("/metrics")
    daemon.signal(signal.SIGTERM)
    daemon.wait_told("STOPPING=1")
    assert daemon.wait() == 0
    assert daemon.lines("stopped")
    assert not daemon.socket.exists()
    assert not psutil.pid_exists(pid)
    assert not [line for line in daemon.log.read_text().splitlines() if '"level": "error"' in line]


async def test_it_says_what_the_node_is(daemon: Daemon) -> None:
    daemon.start()
    daemon.wait_ready()
    async with connect(f"unix:{daemon.socket}", Tls()) as client:
        node = await client.node()
    assert (node.cluster, node.node) == ("test", "node")
    assert node.kernel == os.uname().release
    assert node.criu
    assert node.runc
    assert list(node.pods) == []
    assert (node.running, node.queued) == (0, 0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP], ids=["INT", "HUP"])
def test_other_signals_are_as_good(daemon: Daemon, number: signal.Signals) -> None:
    daemon.start()
    daemon.wait_ready()
    daemon.signal(number)
    assert daemon.wait() == 0


def test_the_watchdog_hears_from_it(tmp_path: Path) -> None:
    with daemon_in(tmp_path, env={"WATCHDOG_USEC": "200000"}) as daemon:
        daemon.start()
        daemon.wait_told("WATCHDOG=1")
        daemon.wait_told("WATCHDOG=1")
        assert daemon.stop() == 0


def test_a_daemon_that_hangs_does_not_answer_the_watchdog(tmp_path: Path) -> None:
    with daemon_in(tmp_path, env={"WATCHDOG_USEC": "100000"}) as daemon:
        daemon.start()
        daemon.wait_told("WATCHDOG=1")
        daemon.signal(signal.SIGSTOP)
        wait_until(lambda: _state(daemon) == psutil.STATUS_STOPPED, "the daemon being stopped")
        daemon.told()
        assert daemon.told() == []
        daemon.signal(signal.SIGCONT)
        daemon.wait_told("WATCHDOG=1")


def _state(daemon: Daemon) -> str:
    assert daemon.process is not None
    return str(psutil.Process(daemon.process.pid).status())


def test_a_fault_ends_it_in_order_so_that_it_is_started_again(daemon: Daemon) -> None:
    (daemon.state_dir / "operations").mkdir(parents=True)
    daemon.start()
    daemon.wait_ready()
    assert daemon.process is not None
    # As if it had leaked them: no descriptor is left to look for leftovers with.
    resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE, (3, 3))
    assert daemon.wait() == 1
    assert daemon.lines("a task that never ends has ended: the daemon stops")
    assert daemon.lines("stopped")


def test_a_second_one_is_refused_and_the_first_goes_on(daemon: Daemon) -> None:
    daemon.start()
    daemon.wait_ready()
    assert daemon.process is not None
    done = run_cli("daemon", "--config", str(daemon.config), "-o", "json")
    assert done.returncode == 6
    error = only_document(done.stdout)["error"]
    assert error["code"] == "already_running"
    assert error["fields"]["owner_pid"] == daemon.process.pid
    assert daemon.get("/healthz") == "ok\n"
    assert daemon.stop() == 0


def test_after_a_kill_the_next_one_starts(daemon: Daemon) -> None:
    for _ in range(2):
        daemon.start()
        daemon.wait_ready()
        daemon.kill()


def test_a_metrics_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with daemon_in(tmp_path, {"metrics": {"address": address}}) as daemon:
            daemon.start()
            assert daemon.wait() == 2
            assert "[metrics] address" in daemon.log.read_text()
            assert address in daemon.log.read_text()


def test_metrics_can_be_off(tmp_path: Path) -> None:
    with daemon_in(tmp_path, {"metrics": {"address": ""}}) as daemon:
        daemon.start()
        daemon.wait_ready()
        assert daemon.lines("metrics") == []
        assert daemon.stop() == 0


def test_a_store_that_cannot_be_is_named(tmp_path: Path) -> None:
    with daemon_in(tmp_path, {"storage": {"store": "ftp://x/y"}}) as daemon:
        daemon.start()
        assert daemon.wait() == 2
        assert "[storage] store" in daemon.log.read_text()


def test_a_socket_that_is_taken_stops_the_start_in_order(daemon: Daemon, tmp_path: Path) -> None:
    daemon.start()
    daemon.wait_ready()
    (tmp_path / "other").mkdir()
    with daemon_in(tmp_path / "other", {"rpc": {"socket": str(daemon.socket)}}) as other:
        other.start()
        assert other.wait() == 14
        assert other.lines("stopped")
    assert daemon.get("/healthz") == "ok\n"


def test_idle_it_is_small(daemon: Daemon) -> None:
    daemon.start()
    daemon.wait_ready()
    assert daemon.process is not None
    assert psutil.Process(daemon.process.pid).memory_info().rss < 120 * MIB


async def test_calls_leave_no_descriptors(daemon: Daemon) -> None:
    daemon.start()
    daemon.wait_ready()
    assert daemon.process is not None
    pid = daemon.process.pid

    async def call() -> None:
        async with connect(f"unix:{daemon.socket}", Tls()) as client:
            await client.node()

    await call()
    before = open_descriptors(pid)
    for _ in range(5):
        await call()
    wait_until(lambda: open_descriptors(pid) <= before, "the calls' descriptors being closed")


def test_importing_it_loads_no_object_store() -> None:
    """An agent that stores into a directory need not hold obstore and pycriu in memory."""
    code = (
        "import agent.daemon.main, json, sys;"
        "print(json.dumps([n for n in ('obstore', 'pycriu') if n in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
