"""Servers that several folders of tests share, each started when a test first asks for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.servers.moto import MotoServer
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
