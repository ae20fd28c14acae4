"""The command ``daemon``: what runs on every node."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from agent.cli.errors import NotRoot
from agent.cli.options import OutputOption
from agent.cli.output import Output, to_json

Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        envvar="CHECKPOINT_AGENT_CONFIG",
        help="Settings, as TOML. Default: /etc/checkpoint-agent/config.toml.",
    ),
]
ShowConfig = Annotated[
    bool,
    typer.Option("--show-config", help="Print the effective settings, without secrets, and end."),
]


def daemon(
    config: Config = None, show_config: ShowConfig = False, output: OutputOption = Output.TEXT
) -> None:
    """Serve actions from the broker and over gRPC until a signal comes.

    --show-config prints JSON either way; -o json is about how errors are printed.
    """
    from agent.settings import load

    settings = load(config, os.environ)
    if show_config:
        print(to_json(settings))
        return
    if os.geteuid() != 0:
        raise NotRoot(command="daemon")
    from agent.daemon.main import run

    raise typer.Exit(run(settings))
