"""The agent's peak memory, for a small and a large image."""

from __future__ import annotations

from bench.bundle import COUNTER, memory
from bench.lab import Lab, settle
from bench.outcome import Outcome, Samples, Target

MIB = 1 << 20
LIMIT = 300.0


def measure(lab: Lab) -> Outcome:
    """One checkpoint and one restore of each size."""
    samples = Samples()
    for size in lab.scale.peaks:
        container = lab.runc.start(lab.runc.build(COUNTER, memory(size)))
        lab.empty_store()
        settle()
        saved, _ = lab.checkpoint(container)
        container.delete()
        settle(lab.store)
        restored, _ = lab.agent("restore", saved.text("path"))
        container.delete()
        samples.add(f"{size} MiB", checkpoint_mib=saved.peak_bytes / MIB,
                    restore_mib=restored.peak_bytes / MIB)  # fmt: skip
    lab.empty_store()
    targets = [
        Target(f"peak memory, {what}, image of {size}", max(figures[f"{what}_mib"]), LIMIT, "MiB",
               "resident, whole process")
        for size, figures in samples.rounds.items() for what in ("checkpoint", "restore")
    ]  # fmt: skip
    return Outcome("peak", "Peak memory of the agent", samples, targets, NOTES)


NOTES = [
    "The kernel's `ru_maxrss` of the command when it is reaped: the largest resident set of the "
    "agent or of any program that it started and waited for, shared libraries included.",
]
