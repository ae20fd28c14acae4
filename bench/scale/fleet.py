"""Starts the processes that nodes.py runs in, and ends them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.reports import wait_until
from bench.scale.nodes import Fleet

ROOT = Path(__file__).resolve().parent.parent.parent

# Seconds until all nodes of all processes have a broker; a thousand on two cores need some 30.
PATIENCE = 180.0


@dataclass
class NodeProcess:
    """One process of nodes."""

    fleet: Fleet
    process: subprocess.Popen[bytes] | None = None
    _before: int = 0

    @property
    def directory(self) -> Path:
        """Where its journals are."""
        return Path(self.fleet.directory)

    @property
    def log(self) -> str:
        """What all its runs have said."""
        return (self.directory / "log").read_text()

    def start(self) -> None:
        """Start it; it has no broker yet. After `kill` it goes on with the same journals."""
        self._before = self._said_ready()
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                # Whoever is killed takes it with it.
                ["setpriv", "--pdeathsig", "KILL", sys.executable, "-m", "bench.scale.nodes",
                 json.dumps(asdict(self.fleet))],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=ROOT,
            )  # fmt: skip

    def wait_ready(self) -> None:
        """Wait until every node has a broker."""
        wait_until(self._is_ready, f"nodes in {self.directory}", timeout=PATIENCE)

    def kill(self) -> None:
        """End it as kill -9 does."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def _is_ready(self) -> bool:
        if self.process is None or self.process.poll() is not None:
            raise RuntimeError(f"nodes ended: {self.log}")
        return self._said_ready() > self._before

    def _said_ready(self) -> int:
        path = self.directory / "log"
        return path.read_text().splitlines().count("ready") if path.exists() else 0


@contextmanager
def nodes_in(
    directory: Path,
    broker: str,
    *,
    processes: int,
    nodes: int,
    pods: int,
    work_seconds: float = 0.004,
) -> Iterator[list[NodeProcess]]:
    """That many processes with that many nodes each, all of which have a broker.

    Args:
        directory: an existing one, for their journals; remove it afterwards.
        pods: of each node.
        work_seconds: how long an action takes.
    """
    with ExitStack() as stack:
        started = []
        for number in range(processes):
            own = directory / f"nodes-{number}"
            own.mkdir()
            made = NodeProcess(Fleet(broker, str(own), number * nodes, nodes, pods, work_seconds))
            stack.callback(made.kill)
            made.start()
            started.append(made)
        for made in started:
            made.wait_ready()
        yield started
