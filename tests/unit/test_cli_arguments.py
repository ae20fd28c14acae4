"""What the command line accepts, refuses, and how it says so."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys

import pytest

from agent import __version__
from agent.cli.app import asks_for_json, main
from agent.cli.checkpoint_commands import checkpoint
from agent.manifest import Options
from tests.cli_process import PATIENCE, environment, only_document, run_cli

TOUCHING = ["doctor", "checkpoint", "restore"]
STORED = ["list", "inspect", "verify", "export", "import", "delete"]
COMMANDS = [*TOUCHING, *STORED, "thaw"]

# Libraries that would make every start slow; each is needed by some command only.
HEAVY = {"obstore", "zstandard", "lz4", "psutil", "google", "moto", "rich"}

REFUSED = [
    ([], ""),
    (["no-such-command"], "No such command"),
    (["verfy"], "Did you mean 'verify'"),
    (["restore"], "Missing argument 'PATH'"),
    (["export", "file:///nowhere/x"], "Missing argument 'TARGET'"),
    (["export", "file:///nowhere/x", "d", "--format", "zip"], "--format"),
    (["export", "file:///nowhere/x", "d", "--image", "i"], "--image"),
    (["import"], "Missing argument 'ARCHIVE'"),
    (["import", "/nowhere"], "CHECKPOINT_AGENT_STORE"),
    (["verify", "--no-such-option", "x"], "No such option"),
    (["checkpoint", "c", "--streams", "0"], "--streams"),
    (["checkpoint", "c", "--streams", "65"], "--streams"),
    (["checkpoint", "c", "--streams", "many"], "--streams"),
    (["checkpoint", "--pid", "0"], "--pid"),
    (["checkpoint", "c", "--frozen-limit", "0"], "--frozen-limit"),
    (["checkpoint", "c", "--frozen-limit", "86401"], "--frozen-limit"),
    (["checkpoint", "c", "--manage-cgroups-mode", "gentle"], "--manage-cgroups-mode"),
    (["checkpoint", "c", "--store", "s", "--tcp", "open"], "--tcp"),
    (["checkpoint", "c", "--store", "s", "--tcp", "close", "--tcp-established"], "--tcp: close"),
    (["checkpoint", "c", "--store", "s", "--tcp-close", "--tcp-established"], "contradicts"),
    (["checkpoint"], "CONTAINER or --pid"),
    (["checkpoint", "c", "--pid", "1"], "CONTAINER or --pid"),
    (["list", "-o", "yaml"], "yaml"),
    (["list"], "CHECKPOINT_AGENT_STORE"),
    (["thaw"], "--all"),
    (["dev", "--port", "65536"], "--port"),
]


@pytest.fixture(autouse=True)
def _excepthook(monkeypatch: pytest.MonkeyPatch) -> None:
    """``main`` takes the hook of its process, which in these tests is pytest's."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.delenv("CHECKPOINT_AGENT_STORE", raising=False)


def test_version() -> None:
    done = run_cli("--version")
    assert (done.returncode, done.stdout, done.stderr) == (
        0,
        f"checkpoint-agent {__version__}\n",
        "",
    )


def test_help_names_every_command_and_fits_80_columns() -> None:
    done = run_cli("--help", env={"COLUMNS": "80"})
    assert done.returncode == 0
    listed = [line.split()[0] for line in done.stdout.splitlines() if line.startswith("  ")]
    assert [word for word in listed if word in COMMANDS] == COMMANDS
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "\x1b" not in done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main([command, "--help"]) == 0
    text = capsys.readouterr().out
    assert "--output" in text
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize(
    ("arguments", "heavy"),
    [
        (["--version"], HEAVY | {"pydantic"}),
        (["--help"], HEAVY | {"pydantic"}),
        # typer checks the arguments of a command with pydantic.
        (["verify", "-o", "json"], HEAVY),
        (["checkpoint", "--help"], HEAVY),
    ],
)
def test_start_is_not_delayed_by_libraries(arguments: list[str], heavy: set[str]) -> None:
    program = (
        "import sys; from agent.cli import main; main(sys.argv[1:]); "
        f"sys.exit(' '.join({heavy!r} & sys.modules.keys()) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env=environment(),
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(("arguments", "said"), REFUSED)
def test_refused_for_people(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    printed = capsys.readouterr()
    if arguments:
        assert printed.out == ""
        assert printed.err.startswith("error: ")
        assert said in printed.err
    else:
        assert "Usage: checkpoint-agent" in printed.out


@pytest.mark.parametrize(("arguments", "said"), [case for case in REFUSED if case[0]])
def test_refused_for_programs(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments[:1], "-o", "json", *arguments[1:]]) == 2
    printed = capsys.readouterr()
    error = only_document(printed.out)["error"]
    assert printed.err == ""
    assert error["code"] in ("usage", "invalid_argument")
    assert error["exit_code"] == 2
    assert error["state"] == "nothing was touched"
    assert said in error["message"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["list", "-o", "json"], True),
        (["list", "-ojson"], True),
        (["list", "--output", "json"], True),
        (["list", "--output=json", "--nonsense"], True),
        (["list", "-o", "text"], False),
        (["list", "json"], False),
        (["list", "-o"], False),
        (["inspect", "--", "-o", "json"], False),
        ([], False),
    ],
)
def test_json_is_recognised_before_parsing(words: list[str], expected: bool) -> None:
    assert asks_for_json(words) is expected


@pytest.mark.parametrize(
    "arguments",
    [
        ["checkpoint", "c"],
        ["checkpoint", "--pid", "1"],
        ["restore", "file:///x/y"],
        ["thaw", "--all"],
        ["dev"],
    ],
)
def test_what_touches_processes_needs_root(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert main([*arguments, "-o", "json"]) == 3
    error = only_document(capsys.readouterr().out)["error"]
    assert error["code"] == "not_root"
    assert error["message"] == f"`{arguments[0]}` must run as root"


def test_checkpoint_has_an_option_for_each_of_criu_s() -> None:
    """They are handed over by name."""
    assert Options.model_fields.keys() <= inspect.signature(checkpoint).parameters.keys()
