"""RESULTS.md: the promises with their verdicts first, then each measure's medians."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence

from bench.outcome import Outcome, Target

MIB = 1 << 20

# What `make bench-scale` has to say, which `make bench` leaves as it is.
_SCALE = "## Scale\n"


def render(
    outcomes: Sequence[Outcome], facts: Mapping[str, str], *, command: str, date: str
) -> str:
    """The whole file."""
    parts = [
        "# Benchmark results",
        f"`{command}`, {date}. Raw rounds: [results.json](results.json).",
        "![Ratios to the promised limits](results.svg)",
        table(["promise", "target", "measured", "", "how"], map(_verdict, _targets(outcomes))),
        *(_section(outcome) for outcome in outcomes),
        "## Machine",
        table(["what", "is"], facts.items()),
    ]
    return "\n\n".join(parts) + "\n"


def with_scale(results: str, section: str) -> str:
    """RESULTS.md with another section "Scale", which is its last."""
    before = results.partition(_SCALE)[0].rstrip() or "# Benchmark results"
    return f"{before}\n\n{_SCALE}\n{section.strip()}\n"


def scale_of(results: str) -> str:
    """The section "Scale" of RESULTS.md; "" if there is none."""
    return results.partition(_SCALE)[2]


def _targets(outcomes: Iterable[Outcome]) -> list[Target]:
    return [target for outcome in outcomes for target in outcome.targets]


def _verdict(target: Target) -> list[str]:
    return [
        target.promise,
        f"≤ {target.limit:g} {target.unit}",
        f"**{target.value:.3g} {target.unit}**",
        "met" if target.met else "**missed**",
        target.how,
    ]


def _section(outcome: Outcome) -> str:
    figures = list(dict.fromkeys(f for by in outcome.samples.rounds.values() for f in by))
    rows = [
        [contender, *(_figure(name, by[name]) if name in by else "" for name in figures)]
        for contender, by in outcome.samples.rounds.items()
    ]
    rounds = max(len(values) for by in outcome.samples.rounds.values() for values in by.values())
    said = f"Medians of {rounds} rounds (lowest to highest)." if rounds > 1 else "One round."
    medians = table(["", *map(_heading, figures)], rows)
    return "\n\n".join([f"## {outcome.title}", said, medians, *outcome.notes])


def _heading(figure: str) -> str:
    if figure in ("raw", "stored"):
        return f"{figure}, MiB"
    return figure.replace("_mib", ", MiB") if figure.endswith("_mib") else f"{figure}, s"


def _figure(name: str, values: list[float]) -> str:
    if name in ("raw", "stored"):
        return f"{statistics.median(values) / MIB:.0f}"
    digits = 0 if name.endswith("_mib") else 3
    median = f"{statistics.median(values):.{digits}f}"
    if len(values) == 1:
        return median
    return f"{median} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of Markdown."""
    lines = [head, ["-"] * len(head), *rows]
    # A bar inside a cell would end it.
    return "\n".join(
        "| " + " | ".join(c.replace("|", "\\|") for c in line) + " |" for line in lines
    )
