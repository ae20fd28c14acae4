"""Commands about checkpoints in a store: list, inspect, verify, export, import, delete."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agent.archive.names import Form
from agent.cli import agent_operations
from agent.cli.agent_option import Daemon
from agent.cli.checkpoint_options import Codec, Name, Streams
from agent.cli.errors import ImportInterrupted, ReadInterrupted
from agent.cli.operation import perform
from agent.cli.options import (
    CheckpointPath,
    OutputOption,
    StateDirOption,
    StoreOption,
    chosen_state_dir,
    required_store,
)
from agent.cli.output import Output, emit
from agent.errors import InvalidArgument

if TYPE_CHECKING:
    from agent.archive.write import ArchiveRequest


class Format(StrEnum):
    """What ``export`` writes."""

    FILES = "files"
    OCI = "oci"


ExportTarget = Annotated[
    Path, typer.Argument(metavar="TARGET", help="A new directory; an archive's new file.")
]
ExportFormat = Annotated[
    Format,
    typer.Option("--format", help="CRIU's images as files, or archives as engines have them."),
]
ExportedMember = Annotated[
    str | None,
    typer.Option("--member", metavar="NAME", help="Of several containers only this one (oci)."),
]
ArchiveForm = Annotated[
    Form | None,
    typer.Option("--compression", help="Of archives. Default: as TARGET's name ends (oci)."),
]
ImageName = Annotated[
    str | None,
    typer.Option(
        "--image",
        metavar="NAME",
        help="Where others find the container's files. Default: as its engine noted (oci).",
    ),
]
Archive = Annotated[str, typer.Argument(metavar="ARCHIVE", help="A file, or - for standard input.")]


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
    context: typer.Context,
    path: CheckpointPath,
    target: ExportTarget,
    format_: ExportFormat = Format.FILES,
    member: ExportedMember = None,
    compression: ArchiveForm = None,
    image: ImageName = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Write a checkpoint as a CRIU image directory, or as archives for other tools.

    `criu restore` and `runc restore` take the directory; CRI-O, Podman and checkpointctl take
    archives."""
    from agent.store.url import open_checkpoint

    store, checkpoint_id = open_checkpoint(path)
    if format_ is Format.OCI:
        from agent.archive.write import ArchiveRequest

        request = ArchiveRequest(store, checkpoint_id, target, member, compression, image)
        _export_archives(request, output)
        return
    for name in ("member", "compression", "image"):
        if context.params[name] is not None:
            raise InvalidArgument(f"--{name}", "is for --format oci")
    from agent.cli.catalog_tables import exported
    from agent.export import export as run_export

    result = perform(
        lambda observer: run_export(store, checkpoint_id, target, observer=observer),
        output,
        ReadInterrupted,
    )
    emit(result, output, lambda: exported(result))


def _export_archives(request: ArchiveRequest, output: Output) -> None:
    from agent.archive.write import export_archives
    from agent.cli.catalog_tables import archived

    result = perform(
        lambda observer: export_archives(request, observer=observer), output, ReadInterrupted
    )
    emit(result, output, lambda: archived(result))


def import_(
    archive: Archive,
    store: StoreOption = None,
    streams: Streams = 4,
    compression: Codec = "zstd",
    name: Name = None,
    state_dir: StateDirOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Take the archive of a container that CRI-O, containerd or Podman has checkpointed."""
    from agent.archive.take import ImportRequest, import_archive
    from agent.cli.catalog_tables import imported
    from agent.compress import parse_compression

    request = ImportRequest(
        archive, required_store(store), streams, parse_compression(compression), name
    )
    home = chosen_state_dir(state_dir)
    result = perform(
        lambda observer: import_archive(request, state_dir=home, observer=observer),
        output,
        ImportInterrupted,
    )
    emit(result, output, lambda: imported(result))


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
