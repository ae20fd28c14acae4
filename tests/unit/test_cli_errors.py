"""Exit codes and error documents: complete, documented, and told apart."""

from __future__ import annotations

import importlib
import pkgutil
import re
import signal
from collections.abc import Iterator

import pytest

import agent
from agent.api.errors import Refusal
from agent.cli.errors import EXIT_CODES, exit_code, report, to_document
from agent.errors import AgentError, DumpFailed, Interrupted, StoreFailed, TargetBusy
from tests.cli_process import ROOT, only_document

# Alembic's: they only work while it runs them.
MIGRATIONS = "agent.api.database.migrations."

ROW = re.compile(r"^\| (\d+) \| (?:`(\w+)` )?\|", re.MULTILINE)


def documented() -> set[tuple[int, str]]:
    """Pairs of exit code and name in docs/exit-codes.md."""
    text = (ROOT / "docs" / "exit-codes.md").read_text()
    return {(int(number), name) for number, name in ROW.findall(text)}


def classes(root: type[AgentError] = AgentError) -> Iterator[type[AgentError]]:
    """Every error class of the package, wherever it is defined."""
    for module in pkgutil.walk_packages(agent.__path__, "agent."):
        if module.name != "agent.__main__" and not module.name.startswith(MIGRATIONS):
            importlib.import_module(module.name)
    waiting = [root]
    while waiting:
        found = waiting.pop()
        waiting += found.__subclasses__()
        if found.__module__.startswith("agent."):
            yield found


def ending() -> Iterator[type[AgentError]]:
    """Those that a command, or an action, can end with: not what only HTTP answers with."""
    for kind in classes():
        if not issubclass(kind, Refusal) or "exit_code" in vars(kind):
            yield kind


def codes_of(kind: type[AgentError]) -> set[tuple[int, str]]:
    """What a class can end the program with."""
    if issubclass(kind, Interrupted):
        numbers = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
        return {(exit_code(kind(number.name, number)), kind.code) for number in numbers}
    return {(kind.exit_code, kind.code)}


def test_every_error_class_is_documented_and_nothing_else() -> None:
    raised = set().union(*(codes_of(kind) for kind in ending()))
    assert documented() == raised | {(0, "")}


def test_help_lists_the_documented_exit_codes() -> None:
    assert set(EXIT_CODES) == {number for number, _ in documented()}


def test_a_code_belongs_to_one_class_or_its_subclasses() -> None:
    owners: dict[str, type[AgentError]] = {}
    for kind in sorted(ending(), key=lambda kind: len(kind.__mro__)):
        owner = owners.setdefault(kind.code, kind)
        assert issubclass(kind, owner)
        # The root's stands for a bug, and nobody has it by forgetting to say another.
        assert "code" in vars(kind) or owner is not AgentError, f"{kind.__name__} needs a code"


def test_only_bugs_exit_with_1() -> None:
    bugs = {name for kind in ending() for number, name in codes_of(kind) if number == 1}
    assert bugs == {"internal", "command_failed"}


def test_every_template_can_be_filled() -> None:
    for kind in classes():
        error = kind(*(1 for _ in getattr(kind, "__match_args__", ())))
        assert str(error)
        assert "{" not in str(error)


def test_document_has_everything_a_program_needs() -> None:
    error = DumpFailed(target="container 'c'", reason="exit status 1", log_tail="Error (x.c:1)")
    assert to_document(error) == {
        "error": {
            "code": "dump_failed",
            "message": "checkpoint of container 'c' failed: exit status 1",
            "state": "it runs as before; nothing was stored",
            "hint": "",
            "fields": {
                "target": "container 'c'",
                "reason": "exit status 1",
                "log_tail": "Error (x.c:1)",
            },
            "exit_code": 7,
        }
    }


def test_for_programs_it_is_the_only_output(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(TargetBusy(target="x", owner_pid=7), as_json=True) == 6
    printed = capsys.readouterr()
    assert printed.err == ""
    assert only_document(printed.out)["error"]["fields"] == {"target": "x", "owner_pid": 7}


def test_for_people_it_says_what_failed_the_state_and_what_to_try(
    capsys: pytest.CaptureFixture[str],
) -> None:
    error = StoreFailed(operation="write", url="file:///full", reason="No space left on device")
    assert report(error, as_json=False) == 9
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.splitlines() == [
        "error: write file:///full: No space left on device",
        "try:   check free space, permissions, the store's URL and its credentials",
    ]


def test_for_people_the_end_of_criu_s_log_follows(capsys: pytest.CaptureFixture[str]) -> None:
    log = "\n".join(f"({number:02}) line" for number in range(30)) + "\n(30)\x1b[2J\tError\n"
    report(DumpFailed(target="c", reason="r", log_tail=log), as_json=False)
    lines = capsys.readouterr().err.splitlines()
    assert lines[2] == "log:"
    assert lines[3] == "  (11) line"
    assert lines[-1] == "  (30)\\x1b[2J    Error"
