"""The section "Scale" of bench/RESULTS.md."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.config import find_tools
from bench.machine import facts
from bench.markdown import table
from bench.scale.load import Load
from bench.scale.queries import Query
from bench.scale.stage import Size
from tests.servers.nats import SERVER

# Milliseconds within which 99 of 100 answers have to come.
LIMIT = 20.0

_BOTTLENECK = """\
**The next bottleneck** is the processor: broker, database, API and nodes share its cores here. In a
cluster the nodes have their own, and the first limit is then the API, which is one process of
Python: at {api:.1f} ms for each action one core ends at about {most:.0f} actions a second. py-spy
sees a quarter of that in writing to sockets (each statement and each message is a write), a tenth
in reading events, and the rest in the two transactions of each action (stored; handed over) and
the look-up of its token. More instances are more cores for requests; they share the database,
which is far from its limit. Taking over events stays with one instance at a time. Beyond what that
can do, the stream would be parted by a hash of the action's id (a subject transform of the
broker's), with a row of `projection` and a lease for each part: all that has an order is in one
action."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What one run came to; ``tables`` are MiB, by name."""

    size: Size
    rushed: Load
    calm: Load
    tables: Mapping[str, float]
    asked: Mapping[Query, Sequence[float]]


def missed(measured: Measured) -> list[str]:
    """The queries that took longer than was promised."""
    return [
        query.name
        for query, seconds in measured.asked.items()
        if query.promised and percentile(seconds, 0.99) * 1000 > LIMIT
    ]


def percentile(seconds: Iterable[float], share: float) -> float:
    """The value that ``share`` of them do not exceed."""
    ordered = sorted(seconds)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def section(measured: Measured, *, command: str, date: str) -> str:
    """All of it, without its heading."""
    size, asked = measured.size, measured.asked
    memory = measured.rushed.usage["nodes"].resident_mib / size.all_nodes
    cost = _cost(measured.rushed, "API")
    return "\n\n".join(
        [
            f"`{command}`, {date}. {size.all_nodes} nodes of {size.pods} pods each, on one "
            "nats-server, one API on PostgreSQL (fsync on), all on this machine. The nodes are the "
            "agent's own event code, executor and journal; only what touches containers is "
            f"replaced, by a checkpoint that is over at once. {size.connections} clients.",
            table(["", *("as fast as it goes", "at a third of that")], _rates(measured)),
            "`processing` is when the node said so, `visible` when a client that looks every 10 ms "
            "saw an end that the broker had stored.",
            table(
                ["process", "cores", "ms of a core for each action", "resident, MiB"],
                _usage(measured.rushed),
            ),
            f"As fast as it goes. A simulated node is {memory:.1f} MiB of its process. Anything "
            f"else on the machine kept {measured.rushed.others:.2f} cores busy meanwhile, and "
            f"{max(0.0, measured.calm.others):.2f} at the quieter pace.",
            f"### With {size.rows:,} actions in the database",
            f"One request after the other, {size.looks} of each, lists of 100; p99 at most "
            f"{LIMIT:.0f} ms is what is promised. "
            + ", ".join(f"`{name}` {mib:.0f} MiB" for name, mib in measured.tables.items())
            + " with indexes.",
            table(["query", "p50, ms", "p99, ms", ""], (_answer(*each) for each in asked.items())),
            "Each filter has its index, several together have none: where nothing recent passes "
            "all, whatever passes one is looked at. A part of a pod's name has none at all.",
            _BOTTLENECK.format(api=cost, most=1000 / cost),
            table(["what", "is"], _facts().items()),
        ]
    )


def _rates(measured: Measured) -> list[list[str]]:
    both = (measured.rushed, measured.calm)

    def times(name: str, pick: str) -> list[str]:
        cells = [name]
        for each in both:
            seconds = getattr(each, pick)
            if seconds:
                halves = percentile(seconds, 0.5), percentile(seconds, 0.99)
                cells.append(" / ".join(f"{value * 1000:.0f} ms" for value in halves))
            else:
                cells.append("")
        return cells

    return [
        ["actions", *(f"{len(each.sent):,}" for each in both)],
        ["accepted a second", *(f"{len(each.sent) / each.accepting:.0f}" for each in both)],
        ["ended a second", *(f"{len(each.sent) / each.ending:.0f}" for each in both)],
        times("POST answered, p50 / p99", "answers"),
        times("POST to `processing`, p50 / p99", "begun"),
        times("last event to visible, p50 / p99", "visible"),
    ]


def _usage(load: Load) -> list[list[str]]:
    return [
        [name, f"{used.cores:.2f}", f"{_cost(load, name):.1f}", f"{used.resident_mib:.0f}"]
        for name, used in load.usage.items()
    ]


def _cost(load: Load, process: str) -> float:
    """Milliseconds of a core for each action."""
    return load.usage[process].cores * load.ending / len(load.sent) * 1000


def _answer(query: Query, seconds: Sequence[float]) -> list[str]:
    late = percentile(seconds, 0.99) * 1000
    verdict = "met" if late <= LIMIT else "**missed**"
    return [
        query.name,
        f"{percentile(seconds, 0.5) * 1000:.1f}",
        f"{late:.1f}",
        verdict if query.promised else "not promised",
    ]


def _facts() -> dict[str, str]:
    libraries = ("fastapi", "uvicorn", "sqlalchemy", "asyncpg", "nats-py")
    machine = facts(find_tools(), Path(tempfile.gettempdir()))
    kept = ("processor", "memory", "kernel", "disk", "Python")
    return {
        **{name: machine[name] for name in kept},
        "nats-server": _version([SERVER, "--version"]),
        "PostgreSQL": _version(["psql", "--version"]),
        "libraries": ", ".join(f"{name} {importlib.metadata.version(name)}" for name in libraries),
        "checkpoint-agent": machine["checkpoint-agent"],
    }


def _version(argv: Sequence[str | Path]) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    found = re.search(r"\d+(\.\d+)+", done.stdout)
    return found[0] if found else "unknown"
