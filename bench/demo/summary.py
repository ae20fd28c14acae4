"""The figures of both directions, the counter's course, and when what happened."""

from __future__ import annotations

from rich.table import Table

from bench.demo.actions import MIB, moments
from bench.demo.client import Action
from bench.demo.pod import Counts
from bench.demo.screen import console


def summary(saved: Action, restored: Action, counts: Counts) -> None:
    """Print two tables."""
    _figures(saved, restored, counts)
    _timeline(saved, restored)


def _figures(saved: Action, restored: Action, counts: Counts) -> None:
    outcome = saved["outcome"]
    raw, stored = outcome["bytes_raw"], outcome["bytes_stored"]
    table = Table(title="\nCheckpoint and restore", title_justify="left", show_header=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    for name, value in (
        ("pod stood still", f"{outcome['frozen_seconds']:.3f} s"),
        ("checkpoint, until durable", f"{outcome['wall_seconds']:.3f} s"),
        ("restore, until running", f"{restored['outcome']['wall_seconds']:.3f} s"),
        ("raw", f"{raw / MIB:.1f} MiB"),
        ("stored", f"{stored / MIB:.1f} MiB"),
        ("ratio", f"{stored / raw:.2f}"),
        ("streams", f"{outcome['streams']}, {outcome['codec']}"),
        ("CRIU streamed", "yes" if outcome["streamed"] else str(outcome["fallback_reason"])),
        ("count before the checkpoint", str(counts.before)),
        ("count in the image", str(counts.in_image)),
        ("count when killed", str(counts.killed_at)),
        ("count now, after the restore", str(counts.after)),
        ("memory after restore", "unchanged"),
    ):
        table.add_row(name, value)
    console.print(table)


def _timeline(saved: Action, restored: Action) -> None:
    table = Table(title="\nSeconds from the request to the state", title_justify="left")
    table.add_column("state", style="bold")
    both = {"checkpoint": moments(saved), "restore": moments(restored)}
    for action in both:
        table.add_column(action, justify="right")
    for state in both["checkpoint"]:
        reached = (times.get(state) for times in both.values())
        table.add_row(state, *("" if at is None else f"{at:.3f}" for at in reached))
    console.print(table)
