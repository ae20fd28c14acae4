"""The command line on real checkpoints in a real directory, as a process of its own."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from agent.manifest import MANIFEST
from agent.store import Store, open_store
from tests.checkpoints import write_checkpoint
from tests.cli_process import CLI, PATIENCE, environment, only_document, run_cli, start_cli
from tests.waiting import eventually

IMAGES = {"inventory.img": b"inventory", "config.json": b"{}", "pages-1.img": os.urandom(1 << 20)}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"))


@pytest.fixture
def path(store: Store) -> str:
    """A checkpoint named ``sample``, as a user writes its path."""
    write_checkpoint(store, IMAGES)
    return f"{store.url}/sample"


def error_of(*arguments: str) -> tuple[int, str]:
    """Exit code and ``code`` of a failing command; nothing else may have been printed."""
    done = run_cli(*arguments, "-o", "json")
    assert done.stderr == ""
    error = only_document(done.stdout)["error"]
    assert error["exit_code"] == done.returncode
    return done.returncode, error["code"]


def test_list(store: Store, path: str) -> None:
    write_checkpoint(store, IMAGES, checkpoint_id="newer", created_at="2025-01-03T00:00:00Z")
    done = run_cli("list", "--store", store.url, "-o", "json")
    assert (done.returncode, done.stderr) == (0, "")
    document = only_document(done.stdout)
    assert document["store"] == store.url
    assert [one["path"] for one in document["checkpoints"]] == [f"{store.url}/newer", path]
    assert document["checkpoints"][1]["targets"] == ["c0"]


def test_list_for_people_takes_the_store_from_the_environment(store: Store, path: str) -> None:
    store.put(f"broken/{MANIFEST}", b"no manifest")
    done = run_cli("list", env={"CHECKPOINT_AGENT_STORE": store.url})
    assert (done.returncode, done.stderr) == (0, "")
    header, sample, broken, where = done.stdout.splitlines()
    assert header.split() == ["ID", "OF", "NAME", "RAW", "STORED"]
    assert sample.split()[:4] == ["sample", "c0", "1.00", "MiB"]
    assert broken == "broken  damaged: the manifest has no valid envelope"
    assert where == f"PATH: {store.url}/ID"


def test_list_of_nothing(store: Store) -> None:
    done = run_cli("list", "--store", store.url)
    assert (done.returncode, done.stdout) == (0, f"No checkpoints in {store.url}\n")


def test_verify(path: str) -> None:
    done = run_cli("verify", path, "-o", "json")
    assert (done.returncode, done.stderr) == (0, "")
    document = only_document(done.stdout)
    assert document["path"] == path
    assert document["bytes_raw"] == sum(map(len, IMAGES.values()))


def test_verify_for_people(path: str) -> None:
    done = run_cli("verify", path)
    assert done.returncode == 0
    assert done.stdout.startswith("Whole: every byte is as it was written.\n")
    assert done.stderr.startswith("verify")


def test_verify_of_a_flipped_bit(path: str, tmp_path: Path) -> None:
    stream = tmp_path / "store" / "sample" / "stream-001"
    data = bytearray(stream.read_bytes())
    data[100] ^= 1
    stream.write_bytes(data)
    assert error_of("verify", path) == (11, "checkpoint_corrupt")


def test_export(path: str, tmp_path: Path) -> None:
    done = run_cli("export", path, str(tmp_path / "images"), "-o", "json")
    assert (done.returncode, done.stderr) == (0, "")
    assert only_document(done.stdout)["directory"] == str(tmp_path / "images")
    assert {p.name: p.read_bytes() for p in (tmp_path / "images").iterdir()} == IMAGES
    assert error_of("export", path, str(tmp_path / "images")) == (14, "already_exists")


def test_unknown_checkpoint(store: Store, tmp_path: Path) -> None:
    missing = f"{store.url}/missing"
    for arguments in (
        ["inspect", missing],
        ["verify", missing],
        ["export", missing, str(tmp_path / "x")],
        ["delete", missing, "--yes"],
    ):
        assert error_of(*arguments) == (10, "checkpoint_not_found")
    assert error_of("verify", "ftp://host/x") == (2, "invalid_argument")


def test_delete_needs_a_yes(store: Store, path: str) -> None:
    assert error_of("delete", path) == (2, "invalid_argument")
    assert store.directories() == ["sample"]
    done = run_cli("delete", path, "--yes", "-o", "json")
    assert (done.returncode, only_document(done.stdout)) == (0, {"deleted": path})
    assert store.directories() == []


@pytest.mark.parametrize(
    ("answer", "code", "left"),
    [(b"y\n", 0, []), (b"n\n", 2, ["sample"]), (b"\x03", 130, ["sample"])],
)
def test_delete_asks_on_a_terminal(
    answer: bytes, code: int, left: list[str], store: Store, path: str
) -> None:
    with on_a_terminal("delete", path, "-o", "json") as (process, controller):
        asked = b""
        while b"[y/N]" not in asked:
            asked += os.read(controller, 1024)
        # As a person does, later than the question. Python's input() does not notice a ^C between
        # its last look for signals and its read(): 4 of 3,500 that came at once were not heard.
        eventually(lambda: psutil.Process(process.pid).status() == psutil.STATUS_SLEEPING)
        os.write(controller, answer)
        out, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == code
    document = only_document(out.decode())
    assert document.get("error", {}).get("exit_code", 0) == code
    assert store.directories() == left


def test_progress_bar_on_a_terminal_and_one_document_on_standard_output(path: str) -> None:
    with on_a_terminal("verify", path, "-o", "json") as (process, controller):
        drawn = b""
        while True:
            try:
                drawn += os.read(controller, 1024)
            except OSError:  # EIO: the last writer has closed
                break
        out, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert only_document(out.decode())["path"] == path
    assert b"verify" in drawn
    assert b"%" in drawn


@contextlib.contextmanager
def on_a_terminal(*arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The command line at a terminal, and its other end; standard output is a pipe."""
    controller, terminal = pty.openpty()
    process = subprocess.Popen(
        # A session of its own with the terminal as its own, so that ^C is a signal.
        ["setsid", "--ctty", *CLI, *arguments],
        stdin=terminal,
        stdout=subprocess.PIPE,
        stderr=terminal,
        env=environment(),
    )
    os.close(terminal)
    try:
        yield process, controller
    finally:
        process.kill()
        process.communicate()
        os.close(controller)


def test_signal_during_a_read_changes_nothing(tmp_path: Path) -> None:
    fifo = tmp_path / "pipe"
    os.mkfifo(fifo)
    with (
        start_cli(
            *("doctor", "-o", "json"),
            env={"CHECKPOINT_AGENT_CRIU": str(_holding_up(tmp_path, fifo))},
        ) as process,
        fifo.open("rb"),
    ):  # once the program in CRIU's place opens it, it is under way
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 143
    error = only_document(out)["error"]
    assert (error["code"], error["state"]) == ("interrupted", "nothing was changed")
    assert "SIGTERM: stopping, in order\n" in err


def _holding_up(tmp_path: Path, fifo: Path) -> Path:
    """A program in CRIU's place that says it runs, then does until it is ended."""
    program = tmp_path / "criu"
    program.write_text(f"#!/bin/sh\nexec sleep infinity > {fifo}\n")
    program.chmod(0o755)
    return program
