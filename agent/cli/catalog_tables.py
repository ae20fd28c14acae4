"""What is said about checkpoints in a store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from agent.cli.figures import count, counted, duration, printable, size
from agent.cli.tables import facts, listing, stored

if TYPE_CHECKING:
    from agent.archive.take import ImportResult
    from agent.archive.write import ArchiveResult
    from agent.catalog import CheckpointSummary
    from agent.export import ExportResult
    from agent.verify import VerifyResult


def checkpoint_list(url: str, found: Sequence[CheckpointSummary]) -> RenderableType:
    """Readable checkpoints as a table, newest first, then those that are not."""
    if not found:
        return Text(printable(f"No checkpoints in {url}"))
    parts: list[RenderableType] = []
    readable = [one for one in found if one.problem is None]
    if readable:
        parts.append(_table(readable))
    parts += [
        Text(printable(f"{one.checkpoint_id}  {one.problem}"), "red")
        for one in found
        if one.problem is not None
    ]
    # The id may be in the middle: a store's URL can have a query.
    path = found[0].path.replace(found[0].checkpoint_id, "ID")
    parts.append(Text(printable(f"PATH: {path}"), "dim"))
    return Group(*parts)


def _table(found: Sequence[CheckpointSummary]) -> RenderableType:
    # Most machines have none, and 80 columns are few.
    with_gpus = any(one.gpus for one in found)
    rows = (
        (
            one.checkpoint_id,
            ", ".join(one.targets),
            one.name or "",
            *((counted(one.gpus),) if with_gpus else ()),
            size(one.bytes_raw or 0),
            size(one.bytes_stored or 0),
        )
        for one in found
    )
    heads = ("ID", "OF", "NAME", *(("GPUS",) if with_gpus else ()), "RAW", "STORED")
    return listing(heads, rows, right=("RAW", "STORED"))


def verification(result: VerifyResult) -> RenderableType:
    """What ``verify`` found: nothing, or it would have been an error."""
    head = Text("Whole: every byte is as it was written.", "bold green")
    rows = [
        ("path", result.path),
        ("images", f"{result.images}, in {count(result.chunks, 'chunk')}"),
        ("raw", size(result.bytes_raw)),
        ("stored", stored(result.bytes_stored, result.bytes_raw)),
        ("wall", duration(result.wall_seconds)),
    ]
    return Group(head, facts(rows))


def exported(result: ExportResult) -> RenderableType:
    """What ``export`` wrote, and where."""
    head = Text("Exported; `criu restore --images-dir` takes each directory.", "bold green")
    rows = [
        ("from", result.path),
        *(("to", directory) for directory in result.directories),
        ("images", f"{result.images}, {size(result.bytes_raw)}"),
        ("wall", duration(result.wall_seconds)),
    ]
    return Group(head, facts(rows))


def archived(result: ArchiveResult) -> RenderableType:
    """Which archives ``export`` wrote."""
    form = "" if result.compression == "none" else f", {result.compression}"
    rows = [
        ("from", result.path),
        *(("to", archive) for archive in result.archives),
        ("raw", size(result.bytes_raw)),
        ("written", f"{size(result.bytes_written)}{form}"),
        # The archive cannot tell others that they hide what the image has there.
        ("replaced", ", ".join(result.replaced)),
        ("wall", duration(result.wall_seconds)),
    ]
    return Group(Text("Exported.", "bold green"), facts(rows))


def imported(result: ImportResult) -> RenderableType:
    """What became of an archive."""
    rows = [
        ("path", result.path),
        ("name", result.name or ""),
        ("of", ", ".join(result.containers)),
        ("raw", size(result.bytes_raw)),
        ("stored", stored(result.bytes_stored, result.bytes_raw)),
        ("left out", ", ".join(result.left_out)),
        ("wall", duration(result.wall_seconds)),
    ]
    return Group(Text("Imported.", "bold green"), facts(rows))


def deleted(path: str) -> RenderableType:
    """That a checkpoint is gone."""
    return Text(printable(f"Deleted {path}"))
