"""Errors at the edge: what they are called, what they exit with, how they are printed."""

from __future__ import annotations

import signal
import sys
import traceback
from dataclasses import dataclass
from types import TracebackType
from typing import ClassVar

from agent.errors import AgentError, Interrupted

# Meaning of each exit code, as in `--help` and docs/exit-codes.md.
EXIT_CODES = {
    0: "done",
    1: "a bug in checkpoint-agent; a traceback says where",
    2: "the command line or a value on it cannot be used",
    3: "something is missing: root, a program, a kernel feature",
    4: "no such container or process",
    5: "it is not in a state that can be checkpointed",
    6: "another operation works on it",
    7: "the checkpoint failed",
    8: "the restore failed",
    9: "the store failed",
    10: "no such checkpoint",
    11: "the checkpoint is damaged",
    12: "the checkpoint was written by a newer version",
    13: "the bundle cannot be used",
    14: "something of that name exists already",
    15: "the result could not be printed",
    16: "the broker is away or cannot be used",
    17: "no agent answers at that address",
    18: "the action was given up",
    19: "the database of the API is away or cannot be used",
    20: "a part of `dev` has ended by itself",
    21: "Kubernetes does not let it, or does not answer",
    129: "SIGHUP ended it, in order",
    130: "SIGINT ended it, in order",
    141: "whoever read standard output has gone",
    143: "SIGTERM ended it, in order",
}

BUG_STATE = "unknown"
BUG_HINT = (
    "this is a bug in checkpoint-agent: please report it with the traceback; "
    "`checkpoint-agent thaw --all` thaws what may have been left frozen"
)


@dataclass(eq=False)
class UsageError(AgentError):
    """A command line that does not parse."""

    exit_code: ClassVar[int] = 2
    code: ClassVar[str] = "usage"
    template: ClassVar[str] = "{reason}"
    state: ClassVar[str] = "nothing was touched"
    hint: ClassVar[str] = "`checkpoint-agent COMMAND --help` shows what a command takes"

    reason: str


@dataclass(eq=False)
class NotRoot(AgentError):
    """A command that works on other people's processes, started by an ordinary user."""

    exit_code: ClassVar[int] = 3
    code: ClassVar[str] = "not_root"
    template: ClassVar[str] = "`{command}` must run as root"
    state: ClassVar[str] = "nothing was touched"
    hint: ClassVar[str] = "run it with sudo"

    command: str


@dataclass(eq=False)
class OutputFailed(AgentError):
    """Standard output cannot be written to."""

    exit_code: ClassVar[int] = 15
    code: ClassVar[str] = "output_failed"
    template: ClassVar[str] = "cannot write the result to standard output: {reason}"
    state: ClassVar[str] = "the operation itself is complete"

    reason: str


class BrokenOutput(AgentError):
    """Whoever read standard output has gone, as in ``list | head -1``: nobody is left to tell."""

    exit_code: ClassVar[int] = 128 + signal.SIGPIPE
    code: ClassVar[str] = "broken_output"
    template: ClassVar[str] = "standard output was closed"
    state: ClassVar[str] = "the operation itself is complete"


class InterruptedBefore(Interrupted):
    """A signal came before anything was begun."""

    state: ClassVar[str] = "nothing was touched"


class ReadInterrupted(Interrupted):
    """A signal ended an operation that only reads."""

    state: ClassVar[str] = "nothing was changed"


class ImportInterrupted(Interrupted):
    """A signal ended an import."""

    state: ClassVar[str] = "rolled back: nothing was stored"


class RestoreInterrupted(Interrupted):
    """A signal ended a restore."""

    state: ClassVar[str] = "rolled back: nothing is running from it; the checkpoint is unchanged"


class ThawInterrupted(Interrupted):
    """A signal ended a thaw."""

    state: ClassVar[str] = "something may still be frozen: run it again"


class DeleteInterrupted(Interrupted):
    """A signal came while a daemon deleted something."""

    state: ClassVar[str] = "the daemon deletes it all the same, if the request had arrived"


class FreezeInterrupted(Interrupted):
    """A signal came while a daemon froze or thawed something."""

    state: ClassVar[str] = "unknown; whatever is frozen thaws by itself at its time limit"


class DevInterrupted(Interrupted):
    """A signal came before `dev` was ready."""

    state: ClassVar[str] = "what was started has ended"


class DevEnded(DevInterrupted):
    """A signal ended `dev`, as it always ends: there is nothing to complain about."""


def exit_code(error: AgentError) -> int:
    """What the program exits with: the class's code, or 128 and the signal's number."""
    return 128 + error.signal_number if isinstance(error, Interrupted) else error.exit_code


def to_document(error: AgentError) -> dict[str, object]:
    """The error as ``-o json`` prints it."""
    return _document(
        error.code, str(error), error.state, error.hint, error.fields(), exit_code(error)
    )


def _document(
    code: str, message: str, state: str, hint: str, fields: dict[str, object], number: int
) -> dict[str, object]:
    return {
        "error": {
            "code": code,
            "message": message,
            "state": state,
            "hint": hint,
            "fields": fields,
            "exit_code": number,
        }
    }


def report(error: AgentError, *, as_json: bool) -> int:
    """Print ``error`` where its reader looks for it and return what to exit with."""
    if isinstance(error, (BrokenOutput, DevEnded)):
        return exit_code(error)
    if not as_json or isinstance(error, OutputFailed) or not _printed(to_document(error)):
        from agent.cli.error_text import show

        show(error)
    return exit_code(error)


def _printed(document: dict[str, object]) -> bool:
    """Print an error on standard output; False when nobody can read that: the error still counts
    for more than what it was to be printed on.
    """
    from agent.cli.output import give_up_stdout, to_json

    try:
        print(to_json(document), flush=True)
    except OSError:
        give_up_stdout()
        return False
    return True


def report_bug(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None, *, as_json: bool
) -> None:
    """Print what no layer expected: the traceback, and that it is a bug. For ``sys.excepthook``."""
    traceback.print_exception(kind, error, trace, file=sys.stderr)
    message = f"{kind.__name__}: {error}"
    document = _document("internal", message, BUG_STATE, BUG_HINT, {}, 1)
    if not as_json or not _printed(document):
        print(f"\n{BUG_HINT}", file=sys.stderr)
