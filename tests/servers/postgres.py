"""A real PostgreSQL server for tests, from Debian's package.

One server on loopback out of one temporary folder; the package's own clusters and the programs that
a machine may have in /usr/local/bin play no part:

    with postgres_server() as server:
        url = server.new_database()  # without the password, which is server.password
        server.kill()   # as kill -9 does
        server.start()  # on the same port, with the same rows

It refuses to run as root, so root starts it as the package's user `postgres`.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import pwd
import secrets
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

USER = "tester"  # inside the server, where it may do everything
READY_SECONDS = 30.0
STOP_SECONDS = 10.0
# How long children may take to notice that the server was killed. Idle ones need a millisecond.
NOTICE_SECONDS = 2.0
# Below those that Linux hands out by itself (32768 and up): no client's connection takes the port
# of a server that a test has killed and will start again.
PORTS = range(20_000, 32_768)
# How many of them to try. One is taken when another copy of the suite happens to have it.
TRIES = 10

_CONFIG = """\
listen_addresses = '127.0.0.1'
unix_socket_directories = '{root}'
# The machine does not crash, only the server does.
fsync = off
shared_buffers = 16MB
max_wal_size = 64MB
# A file of the data's, where the default leaves one in /dev/shm when the server is killed.
dynamic_shared_memory_type = mmap
# A worker that is in the template lets no database be made.
autovacuum = off
"""


class PortTaken(Exception):
    """Somebody else listens on the port."""


@dataclass(slots=True)
class PostgresServer:
    """A server that can be stopped, killed and started again on the same port."""

    root: Path
    programs: Path
    password: str = field(repr=False)
    port: int = 0
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    _numbers: Iterator[int] = field(default_factory=itertools.count, repr=False)

    @property
    def url(self) -> str:
        """The database that every server has, without the password."""
        return self._url("postgres")

    @property
    def log(self) -> str:
        """What all its runs have said."""
        return (self.root / "postgres.log").read_text()

    def new_database(self) -> str:
        """The URL of a database that nobody has used yet, without the password."""
        name = f"test_{next(self._numbers)}"
        self._run("createdb", name)
        return self._url(name)

    def drop_database(self, url: str) -> None:
        """Remove a database, together with its connections."""
        self._run("dropdb", "--force", url.rpartition("/")[2])

    def start(self) -> None:
        """Start it and wait until clients can connect. One that runs is left alone.

        Raises:
            PortTaken: somebody else has got its port.
            RuntimeError: it does not start; the text has its log.
        """
        if self._process is not None and self._process.poll() is None:
            return
        said = len(self.log)
        with (self.root / "postgres.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*_unprivileged(), self.programs / "postgres",
                 "-D", self.root / "data", "-p", str(self.port)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={"PATH": os.environ["PATH"]},
            )  # fmt: skip
        try:
            self._wait_ready()
        except BaseException as error:
            self.kill()
            if "Address already in use" in self.log[said:]:
                raise PortTaken(self.port) from error
            raise

    def stop(self) -> None:
        """End it in good order, whoever is connected."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_SECONDS)
        self.kill()

    def kill(self) -> None:
        """End it as kill -9 does, and wait until its children have noticed."""
        if self._process is None:
            return
        children: list[psutil.Process] = []
        # One that stands still makes no more children than those that are found.
        self._process.send_signal(signal.SIGSTOP)
        if self._process.poll() is None:
            children = psutil.Process(self._process.pid).children(recursive=True)
        self._process.kill()
        self._process.wait()
        self._process = None
        _wait_ended(children)

    def _url(self, database: str) -> str:
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{database}"

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [self.programs / program, "--host", "127.0.0.1", "--port", str(self.port),
             "--username", USER, *arguments],
            env={"PATH": os.environ["PATH"], "PGPASSWORD": self.password},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=READY_SECONDS,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{program}: {done.stderr}")

    def _wait_ready(self) -> None:
        """Until the file that it keeps of itself says so."""
        assert self._process is not None
        deadline = time.monotonic() + READY_SECONDS
        while not self._is_ready(self._process.pid):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"postgres: {self.log}")
            time.sleep(0.01)

    def _is_ready(self, pid: int) -> bool:
        with contextlib.suppress(FileNotFoundError):
            # The first line is the process, which may be the killed one's; the last its state.
            lines = (self.root / "data" / "postmaster.pid").read_text().split()
            return bool(lines) and lines[0] == str(pid) and lines[-1] == "ready"
        return False


def _wait_ended(children: Sequence[psutil.Process]) -> None:
    """Wait until none of them runs, even if whoever inherited them takes no notice of it."""
    deadline = time.monotonic() + NOTICE_SECONDS
    while alive := [each for each in children if _runs(each)]:
        if time.monotonic() > deadline:
            # Busy with a query, it does not look whether its parent is there.
            for each in alive:
                with contextlib.suppress(psutil.NoSuchProcess):
                    each.kill()
        time.sleep(0.005)


def _runs(child: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return child.is_running() and child.status() != psutil.STATUS_ZOMBIE
    return False


@contextlib.contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    """Run a server with a new data folder until the context ends. Leaves nothing.

    Starting takes up to two seconds, so share it between tests.

    Raises:
        RuntimeError: something is missing, or it does not start; the text has its log.
    """
    programs = _programs()
    with tempfile.TemporaryDirectory(prefix="postgres-") as folder:
        server = PostgresServer(Path(folder), programs, secrets.token_hex(8))
        _create(server)
        try:
            _start_somewhere(server)
            yield server
        finally:
            server.stop()


def _programs() -> Path:
    """The newest version's: Debian installs versions side by side, in no directory of PATH."""
    found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    if not found:
        raise RuntimeError("no PostgreSQL server; `make setup-test` installs it")
    return max(found, key=lambda path: float(path.parent.name))


def _unprivileged() -> Sequence[str]:
    """What starts a program as a user that the server accepts. A test run that is killed takes it
    with it."""
    if os.geteuid() != 0:
        return ["setpriv", "--pdeathsig", "KILL"]
    user = pwd.getpwnam("postgres")
    return [
        # Of its own: what a killed server leaves in shared memory is gone with its last process.
        *("unshare", "--ipc"),
        *("setpriv", "--reuid", str(user.pw_uid), "--regid", str(user.pw_gid), "--clear-groups"),
        *("--pdeathsig", "KILL"),
    ]


def _create(server: PostgresServer) -> None:
    """Make the data folder, whose only user has a password that every connection is asked for."""
    root = server.root
    (root / "password").write_text(server.password)
    (root / "postgres.log").touch()
    if os.geteuid() == 0:
        user = pwd.getpwnam("postgres")
        for path in (root, root / "password"):
            os.chown(path, user.pw_uid, user.pw_gid)
    done = subprocess.run(
        [*_unprivileged(), server.programs / "initdb", "--pgdata", root / "data",
         "--username", USER, "--pwfile", root / "password", "--auth", "scram-sha-256",
         "--encoding", "UTF8", "--locale", "C", "--no-sync"],
        env={"PATH": os.environ["PATH"]},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=READY_SECONDS,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"initdb: {done.stdout}")
    with (root / "data" / "postgresql.conf").open("a") as config:
        config.write(_CONFIG.format(root=root))


def _start_somewhere(server: PostgresServer) -> None:
    """Start it on a port that is free: whether one is, only listening tells."""
    for port in secrets.SystemRandom().sample(PORTS, TRIES):
        server.port = port
        with contextlib.suppress(PortTaken):
            return server.start()
    raise RuntimeError(f"postgres: {server.log}")
