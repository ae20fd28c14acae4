"""Results as tables for people, at most 80 columns wide where the content allows it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from agent.cli.figures import count, counted, duration, printable, ratio, size
from agent.report import CheckpointResult, RestoredMember, RestoreResult

if TYPE_CHECKING:
    from agent.operation.recovery import Recovered


def facts(rows: Iterable[tuple[str, str]]) -> Table:
    """Two columns: what, and what it is. Rows with nothing to say are left out."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        if value:
            table.add_row(name, Text(printable(value)))
    return table


def listing(
    columns: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[str] = ()
) -> Table:
    """A table with a header; the columns named in ``right`` hold figures."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        figures = column in right
        table.add_column(
            column, justify="right" if figures else "left", overflow="fold", no_wrap=figures
        )
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    return table


def phases(seconds: dict[str, float]) -> str:
    """``dump 1.23 s, commit 4.5 ms, unaccounted 0.31 ms``: in order, without empty ones."""
    return ", ".join(f"{name} {duration(value)}" for name, value in seconds.items() if value)


def stored(count_stored: int, count_raw: int) -> str:
    """``700 MiB, 34 % of raw``."""
    return f"{size(count_stored)}, {ratio(count_stored, count_raw)} of raw"


def how_streamed(streamed: bool, reason: str | None) -> str:
    """Whether CRIU streamed its images, and if not, why."""
    return "streamed by CRIU" if streamed else f"through a directory: {reason or 'not said why'}"


def checkpoint_summary(result: CheckpointResult) -> RenderableType:
    """What ``checkpoint`` did."""
    head = Text(f"Checkpointed, {'stopped' if result.stopped else 'still running'}.", "bold green")
    streams = count(result.streams, "stream")
    rows = [
        ("path", result.path),
        ("name", result.name or ""),
        ("members", ", ".join(result.containers) if len(result.containers) > 1 else ""),
        ("frozen", _frozen(result)),
        ("GPUs", counted(result.gpus)),
        ("wall", duration(result.wall_seconds)),
        ("raw", size(result.bytes_raw)),
        ("stored", stored(result.bytes_stored, result.bytes_raw)),
        ("as", f"{streams}, {count(result.chunks, 'chunk')}, {result.codec}"),
        ("images", how_streamed(result.streamed, result.fallback_reason)),
        ("phases", phases(result.phases)),
    ]
    return Group(head, facts(rows))


def _frozen(result: CheckpointResult) -> str:
    """With the part that GPUs took, if there were any."""
    whole = duration(result.frozen_seconds)
    return f"{whole}, {duration(result.cuda_seconds)} of it by GPUs" if result.gpus else whole


def restore_summary(result: RestoreResult) -> RenderableType:
    """What ``restore`` did."""
    what = "Container" if result.kind == "runc" else "Process"
    said = f"{what} {result.target} runs again, pid {result.pid}."
    if len(result.members) > 1:
        said = f"{len(result.members)} containers run again."
    head = Text(printable(said), "bold green")
    rows = [
        ("members", _restored(result.members) if len(result.members) > 1 else ""),
        ("not restored", ", ".join(result.not_restored)),
        ("from", result.path),
        ("wall", duration(result.wall_seconds)),
        ("raw", size(result.bytes_raw)),
        ("stored", stored(result.bytes_stored, result.bytes_raw)),
        ("images", how_streamed(result.streamed, result.fallback_reason)),
        ("phases", phases(result.phases)),
    ]
    return Group(head, facts(rows))


def _restored(members: Sequence[RestoredMember]) -> str:
    return ", ".join(f"{one.name} as {one.container_id}, pid {one.pid}" for one in members)


def recovered_summary(found: Sequence[Recovered]) -> RenderableType:
    """What ``thaw`` did."""
    if not found:
        return Text("Nothing was left behind.")
    table = listing(
        ("operation", "of", "thawed", "removed", "problem"),
        (
            (
                one.kind,
                one.target,
                "yes" if one.thawed else "no",
                "yes" if one.removed else "no",
                one.problem or "",
            )
            for one in found
        ),
    )
    return Group(
        Text(f"Cleaned up after {count(len(found), 'operation')} that had died.", "bold"), table
    )
