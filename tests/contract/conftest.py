"""Every kind of store, empty and fresh for each test, under the one fixture ``store``."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agent.store import Store, open_store
from tests.servers.s3 import S3Server

if TYPE_CHECKING:
    from tests.contract.live import Live


@pytest.fixture(params=["file", "file-with-names", "memory", "s3-swift", "s3-moto"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """One of the stores: a new directory, name or prefix each time."""
    kind = str(request.param)
    if kind == "memory":
        return open_store(f"memory://{secrets.token_hex(8)}")
    if kind.startswith("file"):
        if kind == "file-with-names":
            # What O_TMPFILE looks like to a kernel or a file system that does not know it: EISDIR.
            monkeypatch.setattr(os, "O_TMPFILE", os.O_DIRECTORY)
        return open_store(str(tmp_path / "store"))
    server: S3Server = request.getfixturevalue(kind.removeprefix("s3-"))
    server.log_in(monkeypatch)
    return open_store(server.url("checkpoints", f"/test/{secrets.token_hex(8)}"))


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """An API with everything it needs, and a node with pods."""
    from tests.contract.live import live_api

    with live_api(tmp_path_factory.mktemp("live")) as made:
        yield made
