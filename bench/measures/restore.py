"""Restore to running: the agent, and zstd with tar and runc."""

from __future__ import annotations

from bench import baseline
from bench.bundle import COUNTER, memory
from bench.lab import Lab, settle
from bench.outcome import Outcome, Samples, Target
from bench.reports import Counter, Memory
from bench.runc import Container

AGENT, RUNC = "agent, zstd", "zstd -d | tar -x + runc restore"


class Spoiled(Exception):
    """What was restored is not what was checkpointed, so its time means nothing."""


def measure(lab: Lab) -> Outcome:
    """Rounds of agent, runc, agent, ... from one checkpoint and one archive of one container."""
    container = lab.runc.start(lab.runc.build(COUNTER, memory(lab.scale.container)))
    lab.empty_store()
    path = lab.checkpoint(container)[0].text("path")
    archive = baseline.checkpoint(lab, container).archive
    container.delete()
    samples = Samples()
    for _ in range(lab.scale.rounds):
        settle(lab.store, archive)
        finished, wall = lab.agent("restore", path)
        samples.add(AGENT, wall=wall, wall_inside=finished.number("wall_seconds"))
        _check_and_delete(container)
        settle(lab.store, archive)
        samples.add(RUNC, wall=baseline.restore(lab, container, archive))
        _check_and_delete(container)
    archive.unlink()
    lab.empty_store()
    ratio = samples.median(AGENT, "wall") / samples.median(RUNC, "wall")
    how = f"of {RUNC}: {samples.median(AGENT, 'wall'):.2f} s / {samples.median(RUNC, 'wall'):.2f} s"
    return Outcome("restore", f"Restore of {lab.scale.container} MiB, to running", samples,
                   [Target("restore to running", ratio, 0.5, "x", how)], NOTES)  # fmt: skip


def _check_and_delete(container: Container) -> None:
    """It counts, and its memory is what it was; then it makes room for the next."""
    counter, held = container.report("counter"), container.report("memory")
    counter.wait_beyond(Counter.TICKS, counter.read(Counter.TICKS))
    held.ask(Memory.VERIFY, Memory.VERIFIED)
    if held.read(Memory.FAILURES):
        raise Spoiled("the memory's checksum has changed")
    container.delete()


NOTES = [
    "`wall` is the whole command, with Python's start, until it says that the container runs. Both "
    "sides read from the same disk; before each, what they read is taken out of the page cache. "
    "After each restore the container's checksum of its memory is compared, outside the time.",
]
