"""What an engine sees of a `checkpoint-runc` whose restore does not come about."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.host import aside
from agent.host.checkpoint_runc import install_wrapper

POD = {
    "checkpoint-agent/restore": "x",
    "io.kubernetes.cri.container-type": "container",
    "io.kubernetes.cri.container-name": "app",
    "io.kubernetes.cri.sandbox-id": "s1",
}

# With the files that each call has inherited. It restores nothing, and makes a state all the same.
_RUNC = """#!/bin/sh
echo "$* has" $(readlink /proc/$$/fd/*) >> {calls}
case " $* " in *" restore "*) mkdir -p {state}; exit 1 ;; esac
exit 5
"""

# Seconds for a whole call. An agent that answers late gets ten of them.
_LIMIT = 40


@dataclass(frozen=True, slots=True)
class Engine:
    """What creates a container."""

    directory: Path

    @property
    def state(self) -> Path:
        return self.directory / "root" / "abc"

    def create(self) -> subprocess.CompletedProcess[str]:
        place = self.directory
        words: list[str | Path] = ["--root", self.state.parent, "create"]
        words += ["--bundle", place / "bundle", "--pid-file", place / "pid", "abc"]
        return subprocess.run(
            [place / "checkpoint-runc", *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_LIMIT,
        )

    def calls(self, word: str) -> list[str]:
        """runc's calls with that word among its arguments."""
        calls = self.directory / "calls"
        lines = calls.read_text().splitlines() if calls.exists() else []
        return [line for line in lines if word in line.partition(" has ")[0].split()]


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    made = Engine(tmp_path)
    made.state.parent.mkdir()
    (tmp_path / "bundle").mkdir()
    config = {"annotations": POD, "root": {"path": "rootfs"}}
    (tmp_path / "bundle" / "config.json").write_text(json.dumps(config))
    (tmp_path / "runc").write_text(_RUNC.format(calls=tmp_path / "calls", state=made.state))
    (tmp_path / "runc").chmod(0o700)
    install_wrapper(
        tmp_path / "checkpoint-runc",
        socket=tmp_path / "restore.sock",
        runc=tmp_path / "runc",
        patience=0,
    )
    return made


@contextmanager
def agent(directory: Path, talk: Callable[[socket.socket], None]) -> Iterator[None]:
    """Answers one connection."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(directory / "restore.sock"))
        listener.listen()

        def answer() -> None:
            try:
                connected, _ = listener.accept()
            except OSError:  # it was shut down: nobody has come
                return
            with connected:
                talk(connected)

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            yield
        finally:
            # Closing it would not wake a thread that accepts.
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def say(connected: socket.socket, word: str, lock: int | None = None, **content: object) -> None:
    line = json.dumps({word: content}).encode() + b"\n"
    socket.send_fds(connected, [line], [] if lock is None else [lock])


def ordered(directory: Path, connected: socket.socket, lock: int) -> None:
    """Up to the first order, which no runc can fulfil."""
    connected.recv(1 << 16)
    say(connected, "limit", seconds=30)
    (directory / "work").mkdir()
    order = {"images": "/i", "work": str(directory / "work"), "launcher": "/l"}
    say(connected, "run", lock, **order, flags=[], layer=None)


def test_the_lock_of_a_restore_ends_with_it(engine: Engine) -> None:
    """What is created after all may wait for its start as long as it likes."""
    held = engine.directory / "lock"
    held.touch()

    def talk(connected: socket.socket) -> None:
        lock = os.open(held, os.O_RDONLY)
        ordered(engine.directory, connected, lock)
        os.close(lock)
        connected.recv(1 << 16)
        say(connected, "cold", reason="it did not come back")

    with agent(engine.directory, talk):
        assert engine.create().returncode == 5
    assert str(held) in engine.calls("restore")[0]
    assert "--force" in engine.calls("delete")[0]
    assert str(held) not in engine.calls("create")[0]


def test_a_container_that_is_there_already_is_left_alone(engine: Engine) -> None:
    engine.state.mkdir()

    def talk(connected: socket.socket) -> None:
        if connected.recv(1 << 16):
            say(connected, "cold", reason="there is one")

    with agent(engine.directory, talk):
        assert engine.create().returncode == 5
    assert engine.calls("create")
    assert not engine.calls("delete")
    assert engine.state.exists()


def _half_unpacked(engine: Engine, pod: str, name: str) -> Path:
    """An emptyDir volume of which both ends of an attempt were killed, mounted by the container."""
    volume = engine.directory / "pods" / pod / "volumes/kubernetes.io~empty-dir" / name
    volume.mkdir(parents=True)
    (volume / "init").touch()
    aside.put(volume)
    (volume / "half").touch()
    path = engine.directory / "bundle" / "config.json"
    config = json.loads(path.read_text())
    config["annotations"]["io.kubernetes.cri.sandbox-uid"] = "u1"
    config.setdefault("mounts", []).append({"destination": f"/{name}", "source": str(volume)})
    path.write_text(json.dumps(config))
    return volume


def test_volumes_are_what_they_were_when_nobody_is_there_to_undo_more(engine: Engine) -> None:
    """Both ends of an attempt were killed, as by a machine that stops, and now no agent listens."""
    work, more = _half_unpacked(engine, "u1", "work"), _half_unpacked(engine, "u1", "more")
    # Its author may mount paths of the machine.
    other = _half_unpacked(engine, "another", "theirs")
    shm = engine.directory / "sandboxes" / "s1" / "shm"
    shm.mkdir(parents=True)
    aside.put(shm)
    (shm / "half").touch()
    path = engine.directory / "bundle" / "config.json"
    config = json.loads(path.read_text())
    config["mounts"] += [
        {"destination": "/dev/shm", "source": str(shm)},
        {"destination": "/proc", "type": "proc", "source": "proc"},
        "nothing",
    ]
    path.write_text(json.dumps(config))
    assert engine.create().returncode == 5
    assert (os.listdir(work), os.listdir(more), os.listdir(shm)) == (["init"], ["init"], [])
    assert sorted(os.listdir(other)) == [aside.NAME, "half"]


def test_a_restart_finds_its_volumes_as_they_are(engine: Engine) -> None:
    """Another one of its pod may be about to come back, with its own volumes."""
    volume = _half_unpacked(engine, "u1", "work")
    records = engine.directory / "restores" / "s1"
    records.mkdir(parents=True)
    (records / "app.json").write_text('{"state": "cold"}')
    assert engine.create().returncode == 5
    assert sorted(os.listdir(volume)) == [aside.NAME, "half"]


def test_volumes_that_cannot_be_what_they_were(engine: Engine) -> None:
    volume = _half_unpacked(engine, "u1", "work")
    aside.recover(volume)
    # A directory that would have to take the place of a file.
    (volume / aside.PARTIAL / "init").mkdir(parents=True)
    done = engine.create()
    assert (done.returncode, "its volumes: " in done.stderr) == (1, True)
    assert engine.calls("create") == []


def test_an_agent_that_takes_no_more_connections(engine: Engine) -> None:
    """One that is stopped, or stuck, is not waited for beyond the patience for one that is gone."""
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as waiting:
        listener.bind(str(engine.directory / "restore.sock"))
        listener.listen(0)
        waiting.connect(str(engine.directory / "restore.sock"))
        assert engine.create().returncode == 5
    assert engine.calls("create")


def test_a_runc_that_cannot_be_started(engine: Engine) -> None:
    """The container fails, in words that an engine can show, and not with a traceback."""
    (engine.directory / "runc").unlink()

    def talk(connected: socket.socket) -> None:
        lock = os.open("/dev/null", os.O_RDONLY)
        ordered(engine.directory, connected, lock)
        os.close(lock)
        connected.recv(1 << 16)
        say(connected, "failed", reason="as it was told")

    with agent(engine.directory, talk):
        done = engine.create()
    assert done.returncode == 1
    assert "as it was told" in done.stderr
    assert "Traceback" not in done.stderr
