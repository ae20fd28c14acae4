"""What `checkpoint-runc` adds to runc, in calls that are none of its business."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from agent.host.checkpoint_runc import install_wrapper
from bench.bundle import COUNTER
from bench.lab import Lab
from bench.outcome import Outcome, Samples, Target

CALLS = 100


def measure(lab: Lab) -> Outcome:
    """Alternate both, for a call that does nothing and one that reads a container's state."""
    container = lab.runc.start(lab.runc.build(COUNTER))
    wrapper = lab.runc.directory / "checkpoint-runc"
    install_wrapper(wrapper, socket=lab.runc.directory / "restore.sock")
    samples = Samples()
    root = ["--root", str(lab.runc.path)]
    calls = {"--version": ["--version"], "state": [*root, "state", container.id]}
    for number in range(CALLS + 1):
        for what, words in calls.items():
            for program in (lab.tools.require_runc(), wrapper):
                seconds = _run(program, words)
                if number:
                    samples.add(f"{program.name} {what}", wall=seconds)
    container.delete()
    targets = [_target(samples, lab.tools.require_runc(), wrapper, what) for what in calls]
    return Outcome("wrapper", "`checkpoint-runc` in runc's place", samples, targets, NOTES)


def _run(program: Path, words: list[str]) -> float:
    began = time.monotonic()
    subprocess.run([program, *words], check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - began


def _target(samples: Samples, runc: Path, wrapper: Path, what: str) -> Target:
    without = samples.median(f"{runc.name} {what}", "wall") * 1000
    with_it = samples.median(f"{wrapper.name} {what}", "wall") * 1000
    return Target(f"checkpoint-runc {what}: added", with_it - without, 5.0, "ms",
                  f"{with_it:.1f} ms / {without:.1f} ms")  # fmt: skip


NOTES = [
    f"Medians of {CALLS} calls of each, one after the other. The runc is found in PATH, as after "
    "an installation that names none.",
]
