"""Wall time to durable and frozen time: agent, runc with tar and zstd, a reader that discards."""

from __future__ import annotations

import os

from agent.host.criu import install_launcher, read_dump_stats
from bench import baseline
from bench.bundle import COUNTER, memory
from bench.discard import discarding
from bench.lab import Lab, settle
from bench.outcome import Outcome, Samples, Target
from bench.reports import Counter
from bench.runc import Container

AGENT, RUNC, DISCARD = "agent, zstd", "runc + tar | zstd -1 -T0", "discarding reader"

REPORTED = {"wall_inside": "wall_seconds", "frozen": "frozen_seconds",
            "raw": "bytes_raw", "stored": "bytes_stored"}  # fmt: skip


def measure(lab: Lab) -> Outcome:
    """Rounds of agent, runc, discard, agent, ... on one container that runs all the time."""
    container = lab.runc.start(lab.runc.build(COUNTER, memory(lab.scale.container)))
    samples = Samples()
    launcher = lab.runc.directory / "launcher"
    install_launcher(launcher, lab.tools)
    for _ in range(lab.scale.rounds):
        _agent(lab, container, samples)
        _runc(lab, container, samples)
        _discard(lab, container, samples)
    container.delete()
    return Outcome("checkpoint", f"Checkpoint of {lab.scale.container} MiB, left running", samples,
                   _targets(samples), NOTES)  # fmt: skip


def _forget_gaps(container: Container) -> None:
    container.report("counter").ask(Counter.RESET, Counter.RESET_DONE)


def _gap(container: Container) -> float:
    """The counter's own longest pause since it was told to forget, in seconds."""
    counter = container.report("counter")
    # The pause counts from the tick after it, which may still have to come.
    counter.wait_beyond(Counter.TICKS, counter.read(Counter.TICKS))
    return counter.read(Counter.GAP_NS) / 1e9


def _agent(lab: Lab, container: Container, samples: Samples) -> None:
    lab.empty_store()
    settle()
    _forget_gaps(container)
    finished, wall = lab.checkpoint(container)
    reported = {figure: finished.number(field) for figure, field in REPORTED.items()}
    samples.add(AGENT, wall=wall, gap=_gap(container), **reported)


def _runc(lab: Lab, container: Container, samples: Samples) -> None:
    settle()
    _forget_gaps(container)
    made = baseline.checkpoint(lab, container)
    samples.add(RUNC, wall=made.wall, wall_fsynced=made.wall_fsynced, gap=_gap(container),
                frozen=made.stats.freezing + made.stats.frozen, stored=made.stored)  # fmt: skip
    made.archive.unlink()


def _discard(lab: Lab, container: Container, samples: Samples) -> None:
    settle()
    _forget_gaps(container)
    images = lab.images("discard")
    path = f"{lab.runc.directory / 'launcher'}:{os.environ['PATH']}"
    with discarding(images):
        lab.runc.run("checkpoint", "--leave-running", "--image-path", images, "--work-path", images,
                     container.id, env=os.environ | {"PATH": path})  # fmt: skip
    stats = read_dump_stats((images / "stats-dump").read_bytes())
    samples.add(DISCARD, frozen=stats.freezing + stats.frozen, gap=_gap(container))


def _targets(samples: Samples) -> list[Target]:
    wall = samples.median(AGENT, "wall") / samples.median(RUNC, "wall")
    frozen = samples.median(AGENT, "frozen") / samples.median(DISCARD, "frozen")
    return [
        Target("wall to durable", wall, 0.35, "x",
               f"of {RUNC}: {samples.median(AGENT, 'wall'):.2f} s / "
               f"{samples.median(RUNC, 'wall'):.2f} s"),
        Target("frozen", frozen, 3.0, "x",
               f"of a {DISCARD}: {samples.median(AGENT, 'frozen'):.3f} s / "
               f"{samples.median(DISCARD, 'frozen'):.3f} s"),
    ]  # fmt: skip


NOTES = [
    "`wall` is the whole command as a user runs it, with Python's start; `wall_inside` is what "
    "the agent itself reports. The agent's streams and manifest are fsynced, with their "
    "directory, when it ends. The other way's `wall` is without any fsync, as it is usually "
    "done; `wall_fsynced` adds one of the archive. The target is taken against the faster.",
    "`frozen` is CRIU's own figure (freezing and frozen time). `gap` is the longest pause that a "
    "process in the container saw between two of its ticks, 2 ms apart.",
    "Before each step everything written earlier is synced to the disk.",
]
