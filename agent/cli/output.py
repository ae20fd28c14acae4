"""What a command prints: one JSON document, or text for people, on standard output."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import sys
from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TextIO

from agent.cli.errors import BrokenOutput, OutputFailed

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

# Where there is no terminal there is no right width: long lines stay whole for grep and awk.
UNLIMITED = 10_000


def open_missing_streams() -> None:
    """Open on nothing what the program was started without (``>&-``). Called first of all.

    Otherwise locks and sockets get the descriptors 0 to 2, on which a child's own streams would
    replace them. Writing to a standard output that was closed fails, as on a full disk.
    """
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:
            # The lowest that is free: that one. What is for errors alone may get lost.
            os.open(os.devnull, os.O_WRONLY if name == "stderr" else os.O_RDONLY)
            mode = "r" if name == "stdin" else "w"
            setattr(sys, name, os.fdopen(descriptor, mode, closefd=False))


class Output(StrEnum):
    """The two ways to print."""

    TEXT = "text"
    JSON = "json"


def is_terminal(stream: TextIO) -> bool:
    """Whether a person watches and the terminal can move its cursor."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def console(stream: TextIO) -> Console:
    """A rich console on ``stream``: colours only on a terminal and without NO_COLOR."""
    from rich.console import Console

    class _Console(Console):
        def on_broken_pipe(self) -> None:
            # rich would point standard output at /dev/null, even when standard error broke.
            raise BrokenPipeError

    terminal = stream.isatty()
    return _Console(
        file=stream,
        force_terminal=terminal,
        no_color=None if terminal else True,
        width=None if terminal or "COLUMNS" in os.environ else UNLIMITED,
        highlight=False,
        markup=False,
        emoji=False,
    )


def write(stream: TextIO, text: RenderableType) -> None:
    """Print ``text``; where there is no terminal, without the spaces that fill up its lines."""
    on_stream = console(stream)
    if on_stream.is_terminal:
        on_stream.print(text)
        return
    with on_stream.capture() as capture:
        on_stream.print(text)
    print("\n".join(line.rstrip() for line in capture.get().splitlines()), file=stream)


def emit(document: object, output: Output, text: Callable[[], RenderableType]) -> None:
    """Print a result: ``document`` as JSON, or what ``text`` makes of it.

    Raises:
        BrokenOutput: whoever read standard output has gone.
        OutputFailed: standard output cannot be written to.
    """
    try:
        if output is Output.JSON:
            print(to_json(document))
        else:
            write(sys.stdout, text())
        sys.stdout.flush()
    except OSError as error:
        give_up_stdout()
        if isinstance(error, BrokenPipeError):
            raise BrokenOutput from error
        reason = "it is closed" if error.errno == errno.EBADF else error.strerror or str(error)
        raise OutputFailed(reason=reason) from error


def give_up_stdout() -> None:
    """It cannot be written to: spare the interpreter's exit the attempt with what is buffered."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def to_json(document: object) -> str:
    """``document`` as JSON: dataclasses and models as objects, paths as text."""
    return json.dumps(document, indent=2, default=_plain)


def _plain(value: Any) -> object:  # noqa: ANN401 - json hands over whatever it does not know
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    dump = getattr(value, "model_dump", None)
    return dump(mode="json") if dump is not None else str(value)
