"""`make test-gpu`: checkpoints of real GPU processes, compared bit by bit with undisturbed ones.

`python -m tests.gpu NAME...` runs some of them.
"""

from __future__ import annotations

import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.gpu.machine import (
    AgentSaid,
    Lab,
    Unusable,
    Workload,
    agent,
    ended,
    lab,
    python_with_torch,
)

# Fifteen seconds at least: a training must not end while the agent starts on a cold machine.
STEPS = 1500


def known_tensors_after_leave_running(lab: Lab) -> None:
    """Its GPU memory is what it was, and it computes on."""
    held = lab.start("held", "hold", 1024)
    before = held.digest()
    found = lab.checkpoint(held)
    assert found["cuda_seconds"] > 0, "the GPU was not suspended"
    assert found["gpus"], "the checkpoint knows of no GPU"
    held.beyond(held.steps)
    assert held.digest_now() == before


def known_tensors_after_a_restore(lab: Lab) -> None:
    """The same after it was ended, and brought back from its checkpoint."""
    held = lab.start("held", "hold", 1024)
    before = held.digest()
    found = lab.checkpoint(held, "--stop")
    ended(held.pid)
    lab.restore(found["path"])
    held.beyond(held.steps)
    assert held.digest_now() == before


def training_with_checkpoints(lab: Lab) -> None:
    """A training that is checkpointed twice on its way ends with the very same weights."""
    alone, disturbed = (lab.start(name, "train", STEPS, 7) for name in ("alone", "disturbed"))
    for at in (50, 150):
        disturbed.beyond(at)
        lab.checkpoint(disturbed)
    assert disturbed.digest() == alone.digest()


def training_killed_and_restored(lab: Lab) -> None:
    """One that is ended half-way and restored does, too."""
    alone, killed = (lab.start(name, "train", STEPS, 7) for name in ("alone", "killed"))
    killed.beyond(100)
    found = lab.checkpoint(killed, "--stop")
    ended(killed.pid)
    lab.restore(found["path"])
    assert killed.digest() == alone.digest()


def two_at_once(lab: Lab) -> None:
    """Two processes on one GPU: the checkpoint of one does not disturb the other."""
    one, other = (
        lab.start(name, "train", STEPS, seed) for name, seed in (("one", 1), ("other", 2))
    )
    one.beyond(50)
    found = lab.checkpoint(one, "--stop")
    ended(one.pid)
    other.beyond(other.steps)
    lab.restore(found["path"])
    again = [lab.start(f"again-{seed}", "train", STEPS, seed) for seed in (1, 2)]
    assert [one.digest(), other.digest()] == [each.digest() for each in again]


def refusal(lab: Lab, workload: Workload, store: Path) -> str:
    """What the agent says of a checkpoint that it cannot take."""
    try:
        lab.checkpoint(workload, store=store)
    except AgentSaid as said:
        return str(said)
    return "it took the checkpoint"


def a_store_that_is_full(lab: Lab) -> None:
    """A checkpoint that fails in the middle changes nothing."""
    alone, failed = (lab.start(name, "train", STEPS, 7) for name in ("alone", "failed"))
    small = lab.directory / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", small], check=True)
    try:
        failed.beyond(100)
        said = refusal(lab, failed, small)
        assert "store_failed" in said, said
    finally:
        subprocess.run(["umount", small], check=True)
    assert failed.digest() == alone.digest()


TESTS: tuple[Callable[[Lab], None], ...] = (
    known_tensors_after_leave_running,
    known_tensors_after_a_restore,
    training_with_checkpoints,
    training_killed_and_restored,
    two_at_once,
    a_store_that_is_full,
)


def main(names: Sequence[str] = ()) -> int:
    """Run all of them, or those of these names; the exit status."""
    try:
        python = python_with_torch()
    except Unusable as reason:
        print(f"test-gpu: skipped, {reason}")
        return 0
    try:
        agent()
    except Unusable as reason:
        print(f"test-gpu: {reason}")
        return 1
    failed = 0
    chosen = [test for test in TESTS if not names or test.__name__ in names]
    for test in chosen:
        began = time.monotonic()
        try:
            with lab(python) as made:
                test(made)
            outcome = "passed"
        except Exception:  # noqa: BLE001 - whatever it is, the others still run
            outcome = "FAILED"
            failed += 1
            traceback.print_exc()
        print(f"{outcome}  {time.monotonic() - began:6.1f} s  {test.__name__}", flush=True)
    print(f"test-gpu: {len(chosen) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
