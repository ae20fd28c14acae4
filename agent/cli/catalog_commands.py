"""Commands about checkpoints in a store: list, inspect, verify, export, delete."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from agent.cli import agent_operations
from agent.cli.agent_option import Daemon
from agent.cli.errors import ReadInterrupted
from agent.cli.operation import perform
from agent.cli.options import CheckpointPath, OutputOption, StoreOption, required_store
from agent.cli.output import Output, emit
from agent.errors import InvalidArgument


def list_(
    context: typer.Context,
    daemon: Daemon,
    store: StoreOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """List the checkpoints of a store."""
    if daemon.is_given:
        # A store from the environment is this machine's; the daemon has one of its own.
        typed = store if agent_operations.given_on_command_line(context, "store") else None
        agent_operations.list_(typed, daemon, output)
        return
    opened = required_store(store)
    from agent.catalog import list_checkpoints
    from agent.cli.catalog_tables import checkpoint_list

    found = perform(
        lambda _observer: asyncio.to_thread(list_checkpoints, opened), output, ReadInterrupted
    )
    emit(
        {"store": opened.url, "checkpoints": found},
        output,
        lambda: checkpoint_list(opened.url, found),
    )


def inspect(path: CheckpointPath, daemon: Daemon, output: OutputOption = Output.TEXT) -> None:
    """Show what a checkpoint holds: processes, memory, times."""
    if daemon.is_given:
        agent_operations.inspect(path, daemon, output)
        return
    from agent.cli.inspect_tables import inspection
    from agent.inspect import inspect as run_inspect
    from agent.store.url import open_checkpoint

    store, checkpoint_id = open_checkpoint(path)
    found = perform(
        lambda _observer: asyncio.to_thread(run_inspect, store, checkpoint_id),
        output,
        ReadInterrupted,
    )
    emit(found, output, lambda: inspection(found))


def verify(path: CheckpointPath, daemon: Daemon, output: OutputOption = Output.TEXT) -> None:
    """Read a whole checkpoint back and check every byte."""
    if daemon.is_given:
        agent_operations.verify(path, daemon, output)
        return
    from agent.cli.catalog_tables import verification
    from agent.store.url import open_checkpoint
    from agent.verify import verify as run_verify

    store, checkpoint_id = open_checkpoint(path)
    result = perform(
        lambda observer: run_verify(store, checkpoint_id, observer=observer),
        output,
        ReadInterrupted,
    )
    emit(result, output, lambda: verification(result))


def export(
    path: CheckpointPath,
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A new directory.")],
    output: OutputOption = Output.TEXT,
) -> None:
    """Write a checkpoint as a CRIU image directory.

    `criu restore` and `runc restore` take that directory."""
    from agent.cli.catalog_tables import exported
    from agent.export import export as run_export
    from agent.store.url import open_checkpoint

    store, checkpoint_id = open_checkpoint(path)
    result = perform(
        lambda observer: run_export(store, checkpoint_id, directory, observer=observer),
        output,
        ReadInterrupted,
    )
    emit(result, output, lambda: exported(result))


def delete(
    path: CheckpointPath,
    daemon: Daemon,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    output: OutputOption = Output.TEXT,
) -> None:
    """Delete a checkpoint for good."""
    if daemon.is_given:
        if not yes:
            _confirm(path)
        agent_operations.delete(path, daemon, output)
        return
    from agent.store.url import open_checkpoint

    store, checkpoint_id = open_checkpoint(path)
    if not yes:
        _confirm(path)
    from agent.catalog import delete as run_delete
    from agent.cli.catalog_tables import deleted

    perform(lambda _observer: _to_its_end(lambda: run_delete(store, checkpoint_id)), output)
    emit({"deleted": path}, output, lambda: deleted(path))


async def _to_its_end(call: Callable[[], None]) -> None:
    """Run a blocking call; a signal does not leave it half done, its outcome is what is told."""
    work = asyncio.ensure_future(asyncio.to_thread(call))
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.shield(work)
    await asyncio.wait([work])
    work.result()


def _confirm(path: str) -> None:
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise InvalidArgument(argument="--yes", reason="needed where nobody can be asked")
    if not typer.confirm(f"Delete {path} for good?", err=True):
        raise InvalidArgument(argument=path, reason="not deleted: the answer was no")
