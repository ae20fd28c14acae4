"""Servers that several folders of tests share, each started when a test first asks for it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.servers.containerd import ContainerdServer
    from tests.servers.moto import MotoServer
    from tests.servers.nats import NatsServer
    from tests.servers.postgres import PostgresServer
    from tests.servers.s3 import S3Server


@pytest.fixture(scope="session")
def swift() -> Iterator[S3Server]:
    """A real S3 server that checks credentials, with the bucket `checkpoints`."""
    from tests.servers.swift import swift_server

    with swift_server() as server:
        server.create_bucket("checkpoints")
        yield server


@pytest.fixture(scope="session")
def _moto() -> Iterator[MotoServer]:
    from tests.servers.moto import moto_server

    with moto_server() as server:
        server.create_bucket("checkpoints")
        yield server


@pytest.fixture
def moto(_moto: MotoServer) -> Iterator[MotoServer]:
    """An S3 server whose answers a test can spoil, with the bucket `checkpoints`."""
    yield _moto
    _moto.faults.clear()


@pytest.fixture(scope="session")
def _containerd() -> Iterator[ContainerdServer]:
    if os.geteuid() != 0:
        pytest.skip("containers need root")
    from tests.servers.containerd import containerd_server

    with containerd_server() as server:
        yield server


@pytest.fixture
def containerd(_containerd: ContainerdServer) -> Iterator[ContainerdServer]:
    """A real containerd with its CRI, without pods."""
    yield _containerd
    _containerd.remove_pods()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[NatsServer]:
    """A real nats-server with JetStream."""
    from tests.servers.nats import nats_server

    with nats_server(tmp_path) as server:
        yield server


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A real PostgreSQL server that asks for a password. Who kills it starts it again."""
    from tests.servers.postgres import postgres_server

    with postgres_server() as server:
        yield server


@pytest.fixture
def postgres_database(postgres: PostgresServer) -> Iterator[str]:
    """The URL of an empty database there, without the password."""
    # A test that failed may have left it killed.
    postgres.start()
    url = postgres.new_database()
    yield url
    postgres.start()
    postgres.drop_database(url)
