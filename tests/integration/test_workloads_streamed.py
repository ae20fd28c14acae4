"""Larger workloads go through a streamed checkpoint: a family of processes, a Redis server."""

from __future__ import annotations

import random
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from agent.host.process import is_taken
from agent.manifest import Options
from bench.bundle import family
from bench.client import connected
from bench.reports import PATIENCE, Family, Report, wait_until
from tests.integration.lab import Lab
from tests.waiting import meanwhile

pytestmark = [pytest.mark.root, pytest.mark.criu]

CONNECTED = Options(tcp_established=True)


def assert_family_works(report: Report, *, echoes: int) -> None:
    """Its token goes round over every channel; with two listeners probed it has echoed as often."""
    hops = [report.read(Family.HOPS + member) for member in range(5)]
    report.wait_beyond(Family.LAPS, report.read(Family.LAPS) + 20)
    report.ask(Family.PROBE, Family.PROBED)
    wait_until(lambda: report.read(Family.ECHOES) == echoes, "both listeners echoing")
    for member, before in enumerate(hops):
        assert report.read(Family.HOPS + member) >= before + 19
    assert report.read(Family.ERRORS) == 0


@pytest.mark.parametrize("stop", [False, True], ids=["leave-running", "stop"])
async def test_family_works_on_over_every_channel(lab: Lab, stop: bool) -> None:
    network = lab.runc.network()
    container = lab.runc.start(lab.runc.build(family(), netns=network))
    report = container.report("family")
    assert_family_works(report, echoes=2)
    with connected(network, report.read(Family.LISTEN_PORT)) as client:
        assert client.echo(b"before\n") == b"before\n"
        pid = container.pid()

        done = await lab.checkpoint(container, stop=stop, options=CONNECTED)

        assert (done.streamed, done.fallback_reason, done.stopped) == (True, None, stop)
        if stop:
            wait_until(lambda: container.status() == "absent", "the container ending")
            restored = await lab.restore(done.checkpoint_id)
            assert (restored.streamed, restored.fallback_reason) == (True, None)
        else:
            assert container.pid() == pid
        assert client.echo(b"after\n") == b"after\n"
    assert_family_works(report, echoes=6)
    assert container.status() == "running"
    assert lab.operations() == []


class Connection:
    """One connection to a Redis server, speaking as much of its protocol as is needed."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        self._answers = self._socket.makefile("rb")

    def close(self) -> None:
        """End the connection."""
        self._answers.close()
        self._socket.close()

    def ask(self, *words: str) -> str | None:
        """Send a command; its answer without the type, None for nothing there."""
        parts = "".join(f"${len(word)}\r\n{word}\r\n" for word in words)
        self._socket.sendall(f"*{len(words)}\r\n{parts}".encode())
        answer = self._line()
        kind, rest = answer[0], answer[1:]
        if kind == "$":
            return None if rest == "-1" else self._line()
        assert kind in "+:", answer
        return rest

    def _line(self) -> str:
        line = self._answers.readline()
        assert line.endswith(b"\r\n"), f"the connection ended: {line!r}"
        return line[:-2].decode()


def value(number: int) -> str:
    """What key ``number`` holds."""
    return f"{number}:" + "v" * (number % 500)


@dataclass
class Writer:
    """Sets one key after the other, each after the last was acknowledged."""

    connection: Connection
    acknowledged: int = 0
    problems: list[BaseException] = field(default_factory=list)

    def wait_for_more(self, count: int = 200) -> int:
        """Wait until ``count`` more keys are acknowledged; how many are now."""
        goal = self.acknowledged + count
        wait_until(lambda: self.acknowledged >= goal or bool(self.problems), f"{goal} keys")
        assert self.problems == []
        return self.acknowledged


@contextmanager
def writing(connection: Connection) -> Iterator[Writer]:
    """A writer at work in a thread while the block runs."""
    writer = Writer(connection)

    def write(over: threading.Event) -> None:
        try:
            while not over.is_set():
                number = writer.acknowledged
                assert connection.ask("SET", f"key-{number}", value(number)) == "OK"
                writer.acknowledged += 1
        except (OSError, AssertionError) as problem:
            writer.problems.append(problem)

    with meanwhile(write):
        yield writer
    assert writer.problems == []


def assert_holds(connection: Connection, keys: int) -> None:
    """The first ``keys`` keys are there with their values, and it takes new ones."""
    wrong = [n for n in range(keys) if connection.ask("GET", f"key-{n}") != value(n)]
    assert wrong == []
    assert connection.ask("SET", "afterwards", "new") == "OK"
    assert connection.ask("GET", "afterwards") == "new"


@dataclass(frozen=True, slots=True)
class Redis:
    """A server in a session of its own; after a restore it is nobody's child but has its pid."""

    process: subprocess.Popen[bytes]
    directory: Path
    port: int

    def reap(self) -> None:
        """Wait until it has ended and neither its pid nor its session is taken."""
        self.process.wait(timeout=PATIENCE)
        wait_until(lambda: not is_taken(self.process.pid), "the pid being free")

    def running(self) -> list[psutil.Process]:
        """What works in its directory, which is the test's own."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                if process.cwd() == str(self.directory):
                    found.append(process)
        return found

    def kill(self) -> None:
        """Kill it, whether started or restored; psutil does not kill a later one of its pid."""
        for process in self.running():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait(timeout=PATIENCE)
        wait_until(lambda: not self.running(), "Redis ending")


def free_port() -> int:
    """A port that nobody listens on nor is ever given to a client, so that it stays free."""
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = random.randrange(first // 2, first)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Redis]:
    """A server that keeps its keys in memory only; nothing of it outlives the test."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("needs redis-server")
    directory, port = tmp_path / "redis", free_port()
    directory.mkdir()
    words = f"--port {port} --bind 127.0.0.1 --appendonly no --daemonize no"
    process = subprocess.Popen(
        [program, *words.split(), "--save", "", "--dir", directory, "--logfile", "redis.log"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=directory,
        start_new_session=True,
    )
    server = Redis(process, directory, port)
    (log := directory / "redis.log").touch()
    try:
        wait_until(lambda: "Ready to accept" in log.read_text(), "Redis getting ready")
        yield server
    finally:
        server.kill()


async def test_redis_serves_on_and_comes_back_with_its_keys(lab: Lab, redis: Redis) -> None:
    with closing(Connection(redis.port)) as connection:
        with writing(connection) as writer:
            writer.wait_for_more()
            left = await lab.checkpoint(redis.process.pid, options=CONNECTED)
            writer.wait_for_more()
        assert (left.streamed, left.fallback_reason, left.stopped) == (True, None, False)
        assert_holds(connection, writer.acknowledged)

        done = await lab.checkpoint(redis.process.pid, stop=True, options=CONNECTED)
        redis.reap()
        assert redis.running() == []
        restored = await lab.restore(done.checkpoint_id)

        assert (done.streamed, done.stopped) == (True, True)
        assert (restored.streamed, restored.pid) == (True, redis.process.pid)
        assert connection.ask("PING") == "PONG"
        with closing(Connection(redis.port)) as another:
            assert_holds(another, writer.acknowledged)
        assert_holds(connection, writer.acknowledged)


async def test_redis_has_what_it_acknowledged_before_a_checkpoint(lab: Lab, redis: Redis) -> None:
    with closing(Connection(redis.port)) as connection, writing(connection) as writer:
        before = writer.wait_for_more()
        done = await lab.checkpoint(redis.process.pid, options=CONNECTED)
        writer.wait_for_more()
    redis.kill()
    redis.reap()

    await lab.restore(done.checkpoint_id)

    with closing(Connection(redis.port)) as connection:
        assert_holds(connection, before)
        assert connection.ask("GET", f"key-{writer.acknowledged - 1}") is None
