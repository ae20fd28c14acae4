"""The machine's redis-server in a container, and a client that speaks RESP over a plain socket."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from dataclasses import replace
from pathlib import Path

from bench.bundle import COUNTER, Bundle
from bench.reports import wait_until
from bench.runc import Container, RuncRoot
from tests.networks import socket_in

PORT = 6379


def start_redis(runc: RuncRoot, network: Path) -> Container:
    """A container of a redis-server that keeps everything in memory, in the namespace given."""
    bundle = replace(runc.build(COUNTER, netns=network), workloads=())
    _install(bundle, "redis-server")
    config = json.loads((bundle.path / "config.json").read_text())
    config["process"]["args"] = [
        *("/bin/redis-server", "--bind", "127.0.0.1", "--port", str(PORT)),
        *("--save", "", "--appendonly", "no"),
    ]
    (bundle.path / "config.json").write_text(json.dumps(config))
    container = runc.start(bundle)
    wait_until(lambda: _answers(network), "redis answering")
    return container


def _install(bundle: Bundle, program: str) -> None:
    """Copy a program and the libraries that it is linked to, to where the loader expects them."""
    found = shutil.which(program)
    if found is None:
        raise FileNotFoundError(program)
    rootfs = bundle.path / "rootfs"
    shutil.copy(found, rootfs / "bin" / program)
    listed = subprocess.run(["ldd", found], capture_output=True, text=True, check=True).stdout
    for library in (word for word in listed.split() if word.startswith("/")):
        (rootfs / library[1:]).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, rootfs / library[1:])


def _answers(network: Path) -> bool:
    try:
        with Client(network) as client:
            return client.command("PING") == b"PONG"
    except OSError:
        return False


class Client:
    """One connection to redis inside a network namespace."""

    def __init__(self, network: Path) -> None:
        self._socket = socket_in(network)
        try:
            # Seconds. A checkpoint holds a connection up for less than one.
            self._socket.settimeout(30)
            self._socket.connect(("127.0.0.1", PORT))
        except OSError:
            self._socket.close()
            raise
        self._answers = self._socket.makefile("rb")

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._answers.close()
        self._socket.close()

    def command(self, *words: str) -> bytes | None:
        """Send a command and return the answer: a status, an integer as text, or a value.

        Raises:
            ConnectionError: the connection is gone.
        """
        parts = "".join(f"${len(word)}\r\n{word}\r\n" for word in words)
        self._socket.sendall(f"*{len(words)}\r\n{parts}".encode())
        line = self._answers.readline()
        if not line.endswith(b"\r\n") or line.startswith(b"-"):
            raise ConnectionError(f"{words}: {line!r}")
        if not line.startswith(b"$"):
            return line[1:-2]
        length = int(line[1:-2])
        return self._answers.read(length + 2)[:-2] if length >= 0 else None


class Writer:
    """Writes numbered keys over one connection, one after the other, until it is told to stop."""

    def __init__(self, network: Path) -> None:
        self.acknowledged = 0
        self.failure: OSError | None = None
        self._client = Client(network)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._write)

    def __enter__(self) -> Writer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop, and close the connection. May be called twice."""
        self._over.set()
        self._thread.join()
        self._client.__exit__()

    def wait_beyond(self, number: int) -> None:
        """Wait until more keys than that have been acknowledged, or raise what went wrong."""
        wait_until(lambda: self.acknowledged > number or bool(self.failure), "redis answering")
        if self.failure is not None:
            raise self.failure

    def _write(self) -> None:
        try:
            while not self._over.is_set():
                number = self.acknowledged
                self._client.command("SET", key(number), value(number))
                self.acknowledged += 1
        except OSError as error:
            self.failure = error


def key(number: int) -> str:
    """The name of the key that is written as the ``number``-th."""
    return f"key:{number}"


def value(number: int) -> str:
    """What belongs into it: about 100 bytes that say which it is."""
    return f"{number} " * 16
