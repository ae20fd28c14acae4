"""All that takes part: broker, database, API and nodes, each as its own processes."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import psutil

from bench.reports import wait_until
from bench.scale.fleet import NodeProcess, nodes_in
from bench.scale.usage import Meter, children
from tests.api_servers import Api, api_in, postgres_settings
from tests.servers.nats import NatsServer, nats_server
from tests.servers.postgres import PostgresServer, postgres_server

# As PostgreSQL's manual has it for a machine that does nothing else, and with what the server of
# the tests goes without: commits that are on disk, and statistics.
_POSTGRES = {
    "fsync": "on",
    "autovacuum": "on",
    "shared_buffers": "1GB",
    "max_wal_size": "4GB",
    "maintenance_work_mem": "512MB",
}


@dataclass(frozen=True, slots=True)
class Size:
    """How much of everything."""

    processes: int = 8
    nodes: int = 125
    pods: int = 10
    actions: int = 10_000
    connections: int = 32
    calm_actions: int = 1000
    rows: int = 1_000_000
    looks: int = 300

    @property
    def all_nodes(self) -> int:
        """Of all processes."""
        return self.processes * self.nodes


QUICK = Size(processes=2, nodes=5, actions=300, connections=8, calm_actions=60, rows=20_000,
             looks=30)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Stage:
    """One run's."""

    size: Size
    broker: NatsServer
    postgres: PostgresServer
    database: str
    api: Api
    nodes: list[NodeProcess]

    async def connect(self) -> asyncpg.Connection:
        """To the API's database."""
        return await asyncpg.connect(self.database, password=self.postgres.password)

    def meter(self) -> Meter:
        """Of all processes that take part, the client's included."""
        groups = {
            "API": [_process(self.api.process)],
            "broker": children("nats-server"),
            "PostgreSQL": children("postgres"),
            "nodes": [_process(each.process) for each in self.nodes],
            "client": [psutil.Process()],
        }
        return Meter.start(groups)


@contextmanager
def stage(size: Size) -> Iterator[Stage]:
    """A cluster whose nodes the API knows; nothing of it is left when the block ends."""
    with (
        tempfile.TemporaryDirectory(prefix="scale-") as disk,
        # Journals wait for the disk for each state: a thousand nodes have a thousand disks.
        tempfile.TemporaryDirectory(prefix="scale-", dir="/dev/shm") as memory,
        postgres_server() as postgres,
        nats_server(Path(disk)) as broker,
    ):
        asyncio.run(_configure(postgres))
        database = postgres.new_database()
        tables, env = postgres_settings(database, postgres.password)
        tables["log"] = {"level": "info"}
        with (
            nodes_in(
                Path(memory), broker.url,
                processes=size.processes, nodes=size.nodes, pods=size.pods,
            ) as nodes,
            api_in(Path(disk), broker.url, tables, env) as api,
        ):  # fmt: skip
            api.wait_ready()
            wait_until(lambda: _seen(api) == size.all_nodes, "the API knowing all nodes")
            yield Stage(size, broker, postgres, database, api, nodes)


async def _configure(server: PostgresServer) -> None:
    connection = await asyncpg.connect(server.url, password=server.password)
    for name, value in _POSTGRES.items():
        await connection.execute(f"ALTER SYSTEM SET {name} = '{value}'")
    await connection.close()
    server.stop()
    server.start()


def _seen(api: Api) -> int:
    for line in api.get("/metrics").text.splitlines():
        if line.startswith("checkpoint_api_nodes "):
            return int(float(line.rpartition(" ")[2]))
    return 0


def _process(started: object) -> psutil.Process:
    return psutil.Process(getattr(started, "pid", None))
