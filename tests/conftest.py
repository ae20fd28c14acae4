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
