"""The socket of `checkpoint-runc`, with what nobody but a stranger would say to it."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.actions import Executor, PodRestores
from agent.config import Tools
from agent.errors import AlreadyExists, InvalidArgument
from agent.host.cuda import Cuda
from agent.runtime import ActionReporter, RestoreServer
from agent.settings import Settings
from agent.settings.model import Storage
from tests.fakes.scripted_worker import ScriptedWorker
from tests.scripted_executors import executor
from tests.waiting import descriptors

POD = {
    "io.kubernetes.cri.container-type": "container",
    "io.kubernetes.cri.container-name": "app",
    "io.kubernetes.cri.sandbox-id": "s1",
    "io.kubernetes.cri.sandbox-uid": "u1",
    "io.kubernetes.cri.sandbox-namespace": "default",
    "io.kubernetes.cri.sandbox-name": "web",
}


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RestoreServer]:
    async with executor(tmp_path / "journal", ScriptedWorker()) as acting:
        made = _server(tmp_path, acting)
        await made.start()
        yield made
        await made.stop(5.0)
    assert not (tmp_path / "restore.sock").exists()


def _server(directory: Path, acting: Executor) -> RestoreServer:
    settings = Settings(
        state_dir=directory / "state", storage=Storage(store=str(directory / "store"))
    )
    nothing = Path("/nonexistent")
    tools = Tools(nothing, nothing)
    reporter = ActionReporter(acting, PodRestores())
    return RestoreServer(settings, directory / "restore.sock", tools, Cuda(), reporter)


async def _said(directory: Path, data: bytes) -> list[dict[str, dict[str, object]]]:
    """What is answered to ``data`` until the server hangs up."""
    reader, writer = await asyncio.open_unix_connection(str(directory / "restore.sock"))
    writer.write(data)
    writer.write_eof()
    answer = await reader.read()
    writer.close()
    return [json.loads(line) for line in answer.splitlines()]


def _creation(directory: Path, **changed: object) -> bytes:
    about = {"id": "c1", "root": str(directory), "bundle": str(directory / "bundle"), **changed}
    return json.dumps({"create": about}).encode() + b"\n"


def _write_config(directory: Path, config: object) -> None:
    (directory / "bundle").mkdir(exist_ok=True)
    (directory / "bundle" / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        b"no JSON\n",
        b"[1, 2]\n",
        b'{"create": 1}\n',
        b'{"create": {}, "more": {}}\n',
        b"[" * 50_000 + b"\n",
        b"x" * 100_000,
        b"\xff\xfe\n",
    ],
)
async def test_no_message(server: RestoreServer, tmp_path: Path, data: bytes) -> None:
    assert await _said(tmp_path, data) == []


@pytest.mark.parametrize(
    "changed",
    [
        {"id": "../c1"},
        {"id": ".."},
        {"id": 1},
        {"root": "relative"},
        {"root": "/a\0b"},
        {"bundle": None},
        {"upper": "relative"},
        {"impossible": 1},
    ],
)
async def test_no_creation(
    server: RestoreServer, tmp_path: Path, changed: dict[str, object]
) -> None:
    [answer] = await _said(tmp_path, _creation(tmp_path, **changed))
    assert set(answer) == {"cold"}


@pytest.mark.parametrize(
    "config",
    [
        {},
        [],
        {"root": {}},
        {"root": {}, "annotations": POD},
        {"root": {}, "annotations": {**POD, "io.kubernetes.cri.container-name": "../x"},
         "process": {"env": ["CHECKPOINT_RESTORE=x"]}},
        {"root": {}, "annotations": POD, "process": {"env": ["CHECKPOINT_RESTORE=", 1, None]}},
        {"root": {}, "annotations": POD, "process": {"env": {"CHECKPOINT_RESTORE": "x"}}},
        {"root": {}, "annotations": POD, "process": [], "linux": [], "mounts": {"a": 1}},
    ],
)  # fmt: skip
async def test_nothing_that_asks(server: RestoreServer, tmp_path: Path, config: object) -> None:
    _write_config(tmp_path, config)
    *_, answer = await _said(tmp_path, _creation(tmp_path))
    assert set(answer) == {"cold"}
    assert not (tmp_path / "restores" / "s1").exists()


@pytest.mark.parametrize(
    "wanted", ["nobody", "/etc", "file:///etc", "s3://", "../..", "\n", "x" * 100_000, "gs://a/b"]
)
async def test_what_may_not_be_had(server: RestoreServer, tmp_path: Path, wanted: str) -> None:
    config = {"root": {}, "annotations": POD,
              "process": {"env": [f"CHECKPOINT_RESTORE={wanted}"]}}  # fmt: skip
    _write_config(tmp_path, config)
    limit, answer = await _said(tmp_path, _creation(tmp_path))
    assert limit == {"limit": {"seconds": 100.0}}
    assert set(answer) == {"cold"}
    record = json.loads((tmp_path / "restores" / "s1" / "app.json").read_text())
    assert record["state"] == "cold"
    assert (tmp_path / "restores").stat().st_mode & 0o77 == 0


async def test_only_roots_word_counts(server: RestoreServer, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    path = tmp_path / "restore.sock"
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o666)
    os.chmod(tmp_path, 0o755)
    script = (
        "import os, socket; it = socket.socket(socket.AF_UNIX); os.chdir(%r);"
        "os.setgid(65534); os.setuid(65534); it.connect('restore.sock'); print(it.recv(100))"
    )
    words = [sys.executable, "-c", script % str(tmp_path)]
    done = await asyncio.to_thread(subprocess.run, words, capture_output=True)
    assert done.stdout == b"b''\n"


@pytest.mark.parametrize("kind", ["fifo", "directory", "long"])
async def test_what_an_author_mounts_as_the_hostname(
    server: RestoreServer, tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "hostname"
    if kind == "fifo":
        # Whoever opens it waits for somebody who writes.
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    else:
        path.write_text("x" * 100_000)
    mounts = [{"destination": "/etc/hostname", "source": str(path)}]
    config = {"root": {}, "annotations": POD, "mounts": mounts,
              "process": {"env": ["CHECKPOINT_RESTORE=nobody"]}}  # fmt: skip
    _write_config(tmp_path, config)
    async with asyncio.timeout(10):
        *_, answer = await _said(tmp_path, _creation(tmp_path))
    assert "no checkpoint at" in str(answer["cold"]["reason"])
    assert str(path) not in descriptors().values()


async def test_a_reason_of_any_length(server: RestoreServer, tmp_path: Path) -> None:
    """A `checkpoint-runc` takes lines of 64 KiB."""
    config = {"root": {}, "annotations": POD,
              "process": {"env": [f"CHECKPOINT_RESTORE={'x' * 100_000}"]}}  # fmt: skip
    _write_config(tmp_path, config)
    *_, answer = await _said(tmp_path, _creation(tmp_path))
    assert len(str(answer["cold"]["reason"])) < 5000


async def test_a_file_in_its_place_stays(tmp_path: Path) -> None:
    (tmp_path / "restore.sock").write_text("somebody's")
    async with executor(tmp_path / "journal", ScriptedWorker()) as acting:
        made = _server(tmp_path, acting)
        with pytest.raises(InvalidArgument, match="is no socket"):
            await made.start()
        await made.stop(5.0)
    assert (tmp_path / "restore.sock").read_text() == "somebody's"


async def test_two_do_not_share_a_socket(server: RestoreServer, tmp_path: Path) -> None:
    async with executor(tmp_path / "other", ScriptedWorker()) as acting:
        other = _server(tmp_path, acting)
        with pytest.raises(AlreadyExists):
            await other.start()


async def test_a_dead_ones_socket_is_replaced(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "restore.sock"))
    async with executor(tmp_path / "journal", ScriptedWorker()) as acting:
        made = _server(tmp_path, acting)
        await made.start()
        await made.stop(5.0)
