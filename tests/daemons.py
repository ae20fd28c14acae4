"""The daemon as systemd meets it: a process with a configuration, a socket to notify, an end."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.reports import PATIENCE, wait_until
from tests.cli_process import CLI, environment

# Settings by table and key; those outside of tables are under "".
Tables = dict[str, dict[str, object]]


@dataclass
class Daemon:
    """One daemon's files, and its process while it runs.

    ``tables`` go over the configuration that keeps it inside ``directory``.
    """

    directory: Path
    tables: Tables = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    _manager: socket.socket | None = None

    @property
    def state_dir(self) -> Path:
        """Its own directory."""
        return self.directory / "state"

    @property
    def store(self) -> Path:
        """Where its checkpoints are."""
        return self.directory / "store"

    @property
    def socket(self) -> Path:
        """Where it serves gRPC."""
        return self.directory / "agent.sock"

    @property
    def log(self) -> Path:
        """What it says."""
        return self.directory / "daemon.log"

    @property
    def config(self) -> Path:
        """Its settings."""
        return self.directory / "config.toml"

    @property
    def notify(self) -> Path:
        """The service manager's socket."""
        return self.directory / "notify"

    def start(self) -> None:
        """Start it; it may not be ready yet."""
        self.write_config()
        self._listen()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                # A test run that is killed takes it with it.
                ["setpriv", "--pdeathsig", "KILL", *CLI, "daemon", "--config", self.config],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment({"NOTIFY_SOCKET": str(self.notify), **self.env}),
            )

    def write_config(self) -> None:
        """Write its settings anew."""
        tables: Tables = {
            "node": {"cluster": "test", "name": "node"},
            "storage": {"store": str(self.store)},
            "rpc": {"socket": str(self.socket)},
            "metrics": {"address": "127.0.0.1:0"},
            "log": {"level": "debug"},
        }
        for name, keys in self.tables.items():
            tables.setdefault(name, {}).update(keys)
        outside = {"state_dir": str(self.state_dir)} | tables.pop("", {})
        lines = [f"{key} = {json.dumps(value)}" for key, value in outside.items()]
        for name, keys in tables.items():
            lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in keys.items())]
        self.config.write_text("\n".join(lines))

    def _listen(self) -> None:
        if self._manager is None:
            self._manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._manager.bind(str(self.notify))
            self._manager.setblocking(False)

    def told(self) -> list[str]:
        """What the service manager has been told since this was asked the last time."""
        assert self._manager is not None
        found = []
        with suppress(BlockingIOError):
            while True:
                found.append(self._manager.recv(4096).decode())
        return found

    def wait_told(self, word: str) -> None:
        """Wait until the service manager is told so."""

        def told() -> bool:
            assert self.process is not None
            assert self.process.poll() is None, self.log.read_text()
            return any(word in message for message in self.told())

        wait_until(told, f"the daemon saying {word}")

    def wait_ready(self) -> None:
        """Wait until it is ready."""
        self.wait_told("READY=1")

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def wait(self) -> int:
        """Wait for its end and return its exit code."""
        assert self.process is not None
        return self.process.wait(PATIENCE)

    def stop(self) -> int:
        """SIGTERM, and its exit code."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        """End it as kill -9 does."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def close(self) -> None:
        """Nothing of it is left."""
        self.kill()
        if self._manager is not None:
            self._manager.close()

    def lines(self, event: str) -> list[dict[str, Any]]:
        """What it has said under this name."""
        found = []
        for line in self.log.read_text().splitlines():
            with suppress(ValueError):
                said = json.loads(line)
                if said.get("event") == event:
                    found.append(said)
        return found

    def get(self, path: str) -> str:
        """What its metrics server answers."""
        address = self.lines("metrics")[-1]["address"]
        with urllib.request.urlopen(f"http://{address}{path}", timeout=20) as answer:
            return str(answer.read().decode())


@contextmanager
def daemon_in(
    directory: Path,
    tables: Tables | None = None,
    env: Mapping[str, str] | None = None,
) -> Iterator[Daemon]:
    """A daemon that has not been started yet, and does not outlive the block.

    Args:
        directory: an existing one; short, for the sockets in it.
        tables: settings of its own.
    """
    made = Daemon(directory, tables or {}, env or {})
    try:
        yield made
    finally:
        made.close()


def open_descriptors(pid: int) -> int:
    """How many a process has."""
    return len(os.listdir(f"/proc/{pid}/fd"))
