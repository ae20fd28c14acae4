"""What the launcher adds to ``runc checkpoint``, where nothing else takes any time."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from agent.host.criu import install_launcher
from bench.bundle import COUNTER, memory
from bench.discard import discarding
from bench.lab import Lab
from bench.outcome import Outcome, Samples, Target
from bench.runc import Container

BARE, PASSED_THROUGH, STREAMED = "bare", "launcher, passed through", "launcher, streamed"


def measure(lab: Lab) -> Outcome:
    """Alternate the three ways, after one of each that does not count."""
    container = lab.runc.start(lab.runc.build(COUNTER, memory(1)))
    launcher = lab.runc.directory / "launcher-only"
    install_launcher(launcher, lab.tools, awaited=lab.images("launched") / "descriptors.json")
    bare = lab.runc.directory / "bin"
    samples = Samples()
    for number in range(lab.scale.launcher_rounds + 1):
        for contender, first, streamed in (
            (BARE, bare, False),
            (PASSED_THROUGH, launcher, False),
            (STREAMED, launcher, True),
        ):
            seconds = _checkpoint(lab, container, first, streamed=streamed)
            if number:
                samples.add(contender, wall=seconds)
    container.delete()
    targets = [_target(samples, name) for name in (PASSED_THROUGH, STREAMED)]
    return Outcome("launcher", "`runc checkpoint` of a 1 MiB container", samples, targets, NOTES)


def _checkpoint(lab: Lab, container: Container, first: Path, *, streamed: bool) -> float:
    """The seconds of one ``runc checkpoint`` with ``first`` at the head of PATH."""
    images = lab.images("launched")
    path = {"PATH": f"{first}:{os.environ['PATH']}"}
    with discarding(images) if streamed else contextlib.nullcontext():
        began = time.monotonic()
        lab.runc.run("checkpoint", "--leave-running", "--image-path", images, "--work-path", images,
                     container.id, env=os.environ | path)  # fmt: skip
        return time.monotonic() - began


def _target(samples: Samples, contender: str) -> Target:
    with_it, without = samples.median(contender, "wall"), samples.median(BARE, "wall")
    return Target(f"{contender}: added", (with_it - without) * 1000, 40.0, "ms",
                  f"{with_it * 1000:.0f} ms / {without * 1000:.0f} ms")  # fmt: skip


NOTES = [
    "runc starts `criu` two or three times per checkpoint (version, features, dump), and the "
    "launcher as often. What is streamed goes to a reader that discards it: only the way counts.",
]
