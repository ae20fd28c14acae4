"""Signals: a real process of the command line, with an operation that is slow to roll back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from tests.cli_process import PATIENCE, environment, only_document

# Adds a command that tells on descriptor 3 what it does and waits for a word on descriptor 4 where
# a real operation would wait for CRIU.
PROGRAM = """
import asyncio, os, sys
from agent.cli.app import app, main
from agent.cli.operation import perform
from agent.cli.options import OutputOption
from agent.cli.output import Output, emit
from agent.errors import DumpFailed

def hear():
    return os.read(4, 1)

async def operation(observer):
    loop = asyncio.get_running_loop()
    heard = loop.run_in_executor(None, hear)
    os.write(3, b"begun\\n")
    try:
        word = await asyncio.shield(heard)
    except asyncio.CancelledError:
        os.write(3, b"rolling back\\n")
        word = await heard
        os.write(3, b"rolled back\\n")
        if word == b"f":
            raise DumpFailed(target="it", reason="rollback")
        if word == b"c":
            return "committed just before"
        raise
    if word == b"b":
        raise KeyError("a bug")
    return "done"

@app.command()
def work(output: OutputOption = Output.TEXT) -> None:
    result = perform(operation, output)
    emit({"result": result}, output, lambda: result)

sys.exit(main(sys.argv[1:]))
"""


@dataclass
class Child:
    """The running program with its two side channels."""

    process: subprocess.Popen[str]
    told: int
    tell: int

    def expect(self, text: str) -> None:
        """Wait until the operation has said ``text``."""
        wanted = f"{text}\n".encode()
        assert os.read(self.told, len(wanted)) == wanted

    def expect_on_stderr(self, text: str) -> None:
        """Wait for a line on standard error that begins with ``text``."""
        assert self.process.stderr is not None
        assert self.process.stderr.readline().startswith(text)

    def say(self, word: bytes) -> None:
        """Let the operation go on."""
        os.write(self.tell, word)

    def end(self) -> tuple[int, str, str]:
        """Exit code, standard output and the rest of standard error."""
        out, err = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, out, err


@contextmanager
def working(*arguments: str, launcher: Sequence[str] = ()) -> Iterator[Child]:
    told_by, told_to = os.pipe()
    heard_by, heard_from = os.pipe()
    # The child finds its ends at 3 and 4, whatever numbers they have here.
    shell = f'exec "$@" 3>&{told_to} 4<&{heard_by}'
    argv = [*launcher, sys.executable, "-c", PROGRAM, "work", *arguments]
    process = subprocess.Popen(
        ["bash", "-c", shell, "bash", *argv],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        pass_fds=(told_to, heard_by),
        env=environment(),
    )
    os.close(told_to)
    os.close(heard_by)
    try:
        child = Child(process, told_by, heard_from)
        child.expect("begun")
        yield child
    finally:
        process.kill()
        process.communicate()
        os.close(told_by)
        os.close(heard_from)


def test_undisturbed() -> None:
    with working() as child:
        child.say(b"g")
        assert child.end() == (0, "done\n", "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_rolls_back_and_a_second_one_cannot_cut_that_short(number: signal.Signals) -> None:
    with working("-o", "json") as child:
        child.process.send_signal(number)
        child.expect("rolling back")
        child.expect_on_stderr(f"{number.name}: stopping")
        child.process.send_signal(signal.SIGINT)
        child.expect_on_stderr("SIGINT: still")
        child.process.send_signal(signal.SIGTERM)
        child.expect_on_stderr("SIGTERM: still")
        child.say(b"g")
        child.expect("rolled back")
        code, out, err = child.end()
    assert (code, err) == (128 + number, "")
    assert only_document(out)["error"] == {
        "code": "interrupted",
        "message": f"interrupted by {number.name}",
        "state": "rolled back: the target runs as before, nothing was stored",
        "hint": "",
        "fields": {"signal_name": number.name, "signal_number": number},
        "exit_code": 128 + number,
    }


def test_interrupted_for_people() -> None:
    with working() as child:
        child.process.send_signal(signal.SIGINT)
        child.expect("rolling back")
        child.say(b"g")
        code, out, err = child.end()
    assert (code, out) == (130, "")
    assert err.splitlines()[-2:] == [
        "error: interrupted by SIGINT",
        "state: rolled back: the target runs as before, nothing was stored",
    ]


def test_failure_of_the_rollback_is_what_is_told() -> None:
    with working("-o", "json") as child:
        child.process.send_signal(signal.SIGTERM)
        child.expect("rolling back")
        child.say(b"f")
        code, out, _ = child.end()
    assert code == 7
    assert only_document(out)["error"]["code"] == "dump_failed"


def test_signal_that_came_too_late_does_not_hide_the_result() -> None:
    with working("-o", "json") as child:
        child.process.send_signal(signal.SIGTERM)
        child.expect("rolling back")
        child.say(b"c")
        code, out, _ = child.end()
    assert (code, only_document(out)) == (0, {"result": "committed just before"})


def test_ignored_signals_stay_ignored() -> None:
    with working(launcher=["nohup"]) as child:
        child.process.send_signal(signal.SIGHUP)
        child.process.send_signal(signal.SIGINT)
        child.expect("rolling back")
        child.say(b"g")
        assert child.end()[0] == 130


@pytest.mark.parametrize("arguments", [(), ("-o", "json")])
def test_bug_is_called_one(arguments: tuple[str, ...]) -> None:
    with working(*arguments) as child:
        child.say(b"b")
        code, out, err = child.end()
    assert code == 1
    assert "Traceback" in err
    assert "KeyError: 'a bug'" in err
    if arguments:
        error = only_document(out)["error"]
        assert (error["code"], error["message"]) == ("internal", "KeyError: 'a bug'")
        assert "thaw --all" in error["hint"]
    else:
        assert "bug in checkpoint-agent" in err
        assert out == ""
