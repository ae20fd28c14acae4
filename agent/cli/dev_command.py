"""The command ``dev``: everything on this machine, for a first look or to develop against."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agent.cli.errors import DevEnded, DevInterrupted, NotRoot
from agent.cli.operation import until_signalled
from agent.cli.options import OutputOption, StoreOption
from agent.cli.output import Output, emit
from agent.config import DEFAULT_STATE_DIR

if TYPE_CHECKING:
    from rich.console import RenderableType

    from agent.dev import Ready

DEFAULT_DIRECTORY = DEFAULT_STATE_DIR / "dev"

Directory = Annotated[
    Path,
    typer.Option("--directory", metavar="DIR", help="Where everything is kept, between starts."),
]
Port = Annotated[
    int,
    typer.Option("--port", min=0, max=65535, help="Of the API, on 127.0.0.1; 0 takes a free one."),
]
RuncRoots = Annotated[
    list[Path] | None,
    typer.Option(
        "--runc-root",
        metavar="DIR",
        help="Where to look for pods besides the usual places; may be given several times.",
    ),
]


def dev(
    directory: Directory = DEFAULT_DIRECTORY,
    port: Port = 8800,
    store: StoreOption = None,
    runc_root: RuncRoots = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Run a broker, the daemon and the API on this machine, with nothing to configure.

    They stop at Ctrl-C. With -o json one document is printed when everything is ready.
    """
    if os.geteuid() != 0:
        raise NotRoot(command="dev")
    from agent.dev import Wanted, serve

    # Of all that is written from now on, by the programs that are started as well.
    os.umask(0o077)
    roots = tuple(root.absolute() for root in runc_root or ())
    wanted = Wanted(directory, port, store, roots)

    is_ready = False

    def say(text: str) -> None:
        if output is Output.TEXT:
            _note(text)

    def ready(found: Ready) -> None:
        nonlocal is_ready
        is_ready = True
        emit(found, output, lambda: _summary(found))

    try:
        until_signalled(serve(wanted, say, ready), _note, DevInterrupted)
    except DevInterrupted as error:
        if not is_ready:
            raise
        _note("Everything has ended. Checkpoints and history are kept.")
        raise DevEnded(error.signal_name, error.signal_number) from None


def _note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _summary(ready: Ready) -> RenderableType:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from agent.cli.figures import printable

    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    logs = ", ".join(path.name for path in ready.logs.values())
    for name, value in (
        ("page", ready.url),
        ("token", ready.token),
        ("checkpoints", ready.store),
        ("logs", f"{ready.directory}: {logs}"),
    ):
        table.add_row(name, printable(value))
    # Two lines, because one would be folded at 80 columns and be two commands when it is pasted.
    curl = f'curl -H "Authorization: Bearer $TOKEN" {ready.url}/v2/nodes'
    return Group(
        Text("Everything is ready, until Ctrl-C.\n", "bold"),
        table,
        Text(f"\nTry it:\n\nTOKEN={ready.token}\n{curl}"),
    )
