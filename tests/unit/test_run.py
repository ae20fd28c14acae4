"""Programs are started in one way, and nothing of them is left when the call returns."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from agent.errors import MissingTool
from agent.host import process
from agent.host import run as runner
from agent.host.run import INHERITED, CommandFailed, describe_status, environment, run, spawn
from tests.waiting import PATIENCE, descriptors, eventually_async, opened_since

# Tells its pid and then waits for ever.
SLEEPER = 'echo $$ > "$0"; exec sleep 1000'
STUBBORN = f'trap "" TERM; {SLEEPER}'


def pid_in(path: Path) -> int:
    """What a child has written into a file; 0 while it has not."""
    return int(path.read_text() or 0) if path.exists() else 0


async def started(path: Path) -> int:
    """The pid of a child that writes it into a file."""
    deadline = time.monotonic() + PATIENCE
    while not (pid := pid_in(path)):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.002)
    return pid


async def test_output_is_collected() -> None:
    done = await run(["sh", "-c", "echo out; echo err >&2"])

    assert done.argv == ("sh", "-c", "echo out; echo err >&2")
    assert (done.returncode, done.stdout, done.stderr) == (0, "out\n", "err\n")


async def test_output_of_any_kind_and_size() -> None:
    done = await run(["sh", "-c", "head -c 1000000 /dev/zero; printf '\\377' >&2"])

    assert done.stdout == "\0" * 1_000_000
    assert done.stderr == "\N{REPLACEMENT CHARACTER}"


async def test_there_is_nothing_to_read() -> None:
    assert (await run(["cat"])).stdout == ""


async def test_no_word_is_looked_at_by_a_shell(tmp_path: Path) -> None:
    words = ["$HOME", "; exit 3", "`false`", "two words", "*", ""]

    done = await run(["printf", "%s|", *words, tmp_path])

    assert done.stdout == "|".join([*words, str(tmp_path), ""])


async def test_a_failure_carries_everything() -> None:
    with pytest.raises(CommandFailed) as caught:
        await run(["sh", "-c", "echo ' no way ' >&2; exit 7"])

    error = caught.value
    assert (error.status, error.stderr) == ("exit status 7", "no way")
    assert (
        str(error)
        == "`sh -c 'echo '\"'\"' no way '\"'\"' >&2; exit 7'` ended with exit status 7: no way"
    )


async def test_a_signal_is_named() -> None:
    with pytest.raises(CommandFailed, match="ended with SIGKILL"):
        await run(["sh", "-c", "kill -KILL $$"])


async def test_a_failure_can_be_accepted() -> None:
    done = await run(["sh", "-c", "echo x; exit 7"], check=False)

    assert (done.returncode, done.stdout) == (7, "x\n")


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (0, "exit status 0"),
        (1, "exit status 1"),
        (-9, "SIGKILL"),
        (-15, "SIGTERM"),
        (-99, "signal 99"),
    ],
)
def test_statuses_in_words(code: int, text: str) -> None:
    assert describe_status(code) == text


async def test_a_missing_program(tmp_path: Path) -> None:
    with pytest.raises(MissingTool, match=r"^no-such-tool: No such file or directory$"):
        await run([tmp_path / "no-such-tool"])


async def test_a_program_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "tool").write_text("#!/bin/sh\n")

    with pytest.raises(MissingTool, match=r"^tool: Permission denied$"):
        await run([tmp_path / "tool"])


async def test_a_program_that_was_not_written_to_its_end(tmp_path: Path) -> None:
    (tmp_path / "tool").touch(mode=0o700)

    with pytest.raises(MissingTool, match=r"^tool: Exec format error$"):
        await run([tmp_path / "tool"])


async def test_no_descriptor_for_a_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """It runs already then, and nobody would end it."""

    def none_left(pid: int) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), pid)

    before = set(psutil.Process().children())
    monkeypatch.setattr(os, "pidfd_open", none_left)
    with pytest.raises(OSError, match="Too many"):
        await run(["sleep", "1000"])
    assert set(psutil.Process().children()) <= before


async def test_the_environment_is_an_allow_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden")
    monkeypatch.setenv("LD_PRELOAD", "")
    monkeypatch.setenv("TZ", "Europe/Vienna")

    done = await run(["env"], env={"EXTRA": "shown", "TZ": "UTC"})

    names = {line.partition("=")[0] for line in done.stdout.splitlines()}
    assert names <= {*INHERITED, "EXTRA"}
    assert "PATH" in names
    assert {"EXTRA=shown", "TZ=UTC"} <= set(done.stdout.splitlines())
    assert "hidden" not in done.stdout


def test_nothing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TZ", raising=False)

    assert "TZ" not in environment()
    assert environment({"A": "b"})["A"] == "b"


async def test_a_child_gets_its_own_session_and_no_descriptors() -> None:
    read, write = os.pipe()
    os.set_inheritable(write, True)
    script = "ps -o sid= -p $$; echo $$; [ -e /proc/$$/fd/$0 ] && echo leaked; :"
    try:
        done = await run(["sh", "-c", script, str(write)])
    finally:
        os.close(read)
        os.close(write)

    session, pid, *leaked = done.stdout.split()
    assert session == pid
    assert leaked == []


async def test_descriptors_can_be_passed() -> None:
    read, write = os.pipe()

    async with spawn(["bash", "-c", f"echo hello >&{write}"], pass_fds=[write]) as child:
        os.close(write)
        assert await child.wait() == 0

    assert os.read(read, 100) == b"hello\n"
    os.close(read)


@pytest.mark.parametrize(
    "argv", [["true"], ["false"], ["sh", "-c", "kill -KILL $$"], ["/no/such/tool"]]
)
async def test_no_descriptor_is_left_over(argv: list[str]) -> None:
    await run(["true"])  # what the loop opens once
    before = descriptors()

    for _ in range(3):
        try:
            await run(argv)
        except (CommandFailed, MissingTool):
            continue

    # What the loop still has to close.
    await eventually_async(lambda: not opened_since(before))


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give a child that ignores SIGTERM a moment instead of seconds."""
    monkeypatch.setattr(runner, "TERM_GRACE", 0.05)


@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize("script", [SLEEPER, STUBBORN], ids=["obeys", "ignores TERM"])
async def test_cancelling_ends_the_child(tmp_path: Path, script: str) -> None:
    await run(["true"])
    before = descriptors()
    task = asyncio.create_task(run(["bash", "-c", script, tmp_path / "pid"]))
    pid = await started(tmp_path / "pid")

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert not process.is_alive(pid)
    # What the loop still has to close.
    await eventually_async(lambda: not opened_since(before))


@pytest.mark.usefixtures("brief")
async def test_a_child_gets_the_time_that_it_was_promised(tmp_path: Path) -> None:
    # Ends by itself, four times later than the others are killed.
    script = (
        """trap 'sleep 0.2; rm "$0"; exit' TERM; echo $$ > "$0"; while :; do sleep 0.01; done"""
    )
    async with spawn(["bash", "-c", script, tmp_path / "pid"], grace=PATIENCE):
        await started(tmp_path / "pid")
    assert not (tmp_path / "pid").exists()


@pytest.mark.usefixtures("brief")
async def test_cancelling_again_and_again_leaves_no_child_either(tmp_path: Path) -> None:
    task = asyncio.create_task(run(["bash", "-c", STUBBORN, tmp_path / "pid"]))
    pid = await started(tmp_path / "pid")

    while not task.done():
        task.cancel()
        await asyncio.sleep(0.001)

    assert task.cancelled()
    assert not process.is_alive(pid)


async def test_a_timeout_ends_the_child() -> None:
    before = psutil.Process().children()

    with pytest.raises(TimeoutError):
        await run(["sleep", "1000"], timeout=0.02)

    assert psutil.Process().children() == before


async def test_leaving_the_block_ends_the_child(tmp_path: Path) -> None:
    async with spawn(["bash", "-c", SLEEPER, tmp_path / "pid"], grace=PATIENCE) as child:
        await started(tmp_path / "pid")
        assert child.returncode is None

    assert child.returncode == -signal.SIGTERM


async def test_so_does_an_exception(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        async with spawn(["bash", "-c", SLEEPER, tmp_path / "pid"], grace=PATIENCE) as child:
            raise KeyError

    assert child.returncode == -signal.SIGTERM
