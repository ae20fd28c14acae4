"""Arguments and options that several commands share, each described once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agent.cli.output import Output
from agent.errors import InvalidArgument

if TYPE_CHECKING:
    from agent.store import Store

STORE_VARIABLE = "CHECKPOINT_AGENT_STORE"
STATE_DIR_VARIABLE = "CHECKPOINT_AGENT_STATE_DIR"

OutputOption = Annotated[
    Output, typer.Option("--output", "-o", help="What to print on standard output.")
]
StoreOption = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="URL",
        envvar=STORE_VARIABLE,
        help="Where checkpoints are: a directory, file:///DIR or s3://BUCKET/PREFIX.",
    ),
]
StateDirOption = Annotated[
    Path | None,
    typer.Option(
        "--state-dir",
        metavar="DIR",
        envvar=STATE_DIR_VARIABLE,
        help="Locks, journals and working files. Default: /var/lib/checkpoint-agent.",
    ),
]
CheckpointPath = Annotated[
    str,
    typer.Argument(
        metavar="PATH", help="A checkpoint, as `checkpoint` and `list` print it: STORE-URL/ID."
    ),
]


def required_store(url: str | None) -> Store:
    """The store at ``url``, opened.

    Raises:
        InvalidArgument: none was given, or it is not one this agent knows.
    """
    if not url:
        reason = f"missing: a directory, file:///DIR or s3://BUCKET/PREFIX; or set {STORE_VARIABLE}"
        raise InvalidArgument(argument="--store", reason=reason)
    from agent.store import open_store

    return open_store(url)


def chosen_state_dir(option: Path | None) -> Path:
    """The state directory from the command line, else the configured one."""
    from agent.config import state_dir

    return option if option is not None else state_dir()
