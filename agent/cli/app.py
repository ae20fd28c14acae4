"""The program: its commands, and the one place where errors become exit codes."""

from __future__ import annotations

import functools
import itertools
import signal
import sys
from collections.abc import Sequence
from typing import Annotated

import typer
from typer.main import get_command

from agent.cli.agent_commands import actions_app, freeze, node, pods
from agent.cli.agent_option import with_agent
from agent.cli.api_command import api_app
from agent.cli.catalog_commands import delete, export, import_, inspect, list_, verify
from agent.cli.checkpoint_commands import checkpoint, restore, thaw
from agent.cli.daemon_command import daemon
from agent.cli.dev_command import dev
from agent.cli.doctor_command import doctor
from agent.cli.errors import EXIT_CODES, InterruptedBefore, UsageError, report, report_bug
from agent.cli.output import open_missing_streams
from agent.errors import AgentError

PROGRAM = "checkpoint-agent"

# The backspace keeps lines as they are.
_EPILOG = "\b\nExit codes:\n" + "\n".join(
    f"{number:5}  {meaning}" for number, meaning in EXIT_CODES.items()
)

app = typer.Typer(
    name=PROGRAM,
    help="Consistent, streamed checkpoints of running containers and processes.",
    epilog=_EPILOG,
    add_completion=False,
    pretty_exceptions_enable=False,
    # rich's help cuts names of variables and paths at 80 columns, and takes 60 ms more.
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from agent import __version__

        print(f"{PROGRAM} {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    _version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_print_version, help="Print it and end."),
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())
        raise typer.Exit(UsageError.exit_code)


app.command("doctor")(doctor)
app.command("checkpoint")(with_agent(checkpoint))
app.command("restore")(with_agent(restore))
app.command("list")(with_agent(list_))
app.command("inspect")(with_agent(inspect))
app.command("verify")(with_agent(verify))
app.command("export")(export)
app.command("import")(import_)
app.command("delete")(with_agent(delete))
app.command("thaw")(with_agent(thaw))
app.command("freeze")(with_agent(freeze))
app.command("pods")(with_agent(pods))
app.command("node")(with_agent(node))
app.add_typer(actions_app)
app.command("daemon")(daemon)
app.add_typer(api_app)
app.command("dev")(dev)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program with ``arguments`` (default: the process's own); returns its exit code."""
    open_missing_streams()
    words = list(sys.argv[1:] if arguments is None else arguments)
    as_json = asks_for_json(words)
    sys.excepthook = functools.partial(report_bug, as_json=as_json)
    try:
        # None when a command returned, else the code of typer.Exit or, for Ctrl-C, 130.
        code = get_command(app).main(words, prog_name=PROGRAM, standalone_mode=False) or 0
        if code == 128 + signal.SIGINT:
            raise typer.Abort
    except AgentError as error:
        return report(error, as_json=as_json)
    except typer.TyperException as error:
        return report(UsageError(reason=error.format_message()), as_json=as_json)
    except typer.Abort:
        return report(InterruptedBefore("SIGINT", signal.SIGINT), as_json=as_json)
    return int(code)


def asks_for_json(words: Sequence[str]) -> bool:
    """Whether ``-o json`` is among ``words``, which need not make a valid command line."""
    before_dashes = words[: words.index("--")] if "--" in words else words
    separate = any(
        word in ("-o", "--output") and following == "json"
        for word, following in itertools.pairwise(before_dashes)
    )
    return separate or not {"-ojson", "--output=json"}.isdisjoint(before_dashes)
