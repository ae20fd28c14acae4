"""What is for machines with a GPU does run: with a stand-in for the driver, and one for PyTorch."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.gpus import UUID, fake_gpus

pytestmark = [pytest.mark.root, pytest.mark.criu]

_PROJECT = Path(__file__).resolve().parent.parent.parent
_STAND_IN = _PROJECT / "tests/fakes/cuda/torch_python.py"


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Of a machine with a GPU and a Python with PyTorch."""
    gpus = fake_gpus(tmp_path / "driver")
    library = gpus.libraries / "libcuda.so.1"
    words = [sys.executable, "-IS", str(_STAND_IN), str(gpus.program), str(library), UUID]
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
    python.chmod(0o755)
    libraries = {"CHECKPOINT_AGENT_CUDA_LIBRARIES": str(gpus.libraries)}
    yield {**os.environ, **libraries, "TORCH_PYTHON": str(python)}
    # Its processes have no root directory of their own.
    for left in Path("/tmp/cuda").glob("*.*"):
        if not Path("/proc", left.name.partition(".")[0]).exists():
            left.unlink(missing_ok=True)
    with suppress(OSError):
        Path("/tmp/cuda").rmdir()


def run(environment: dict[str, str], *words: str) -> str:
    """What a module of the project prints; it has to succeed."""
    done = subprocess.run(
        [sys.executable, "-S", "-m", *words],
        cwd=_PROJECT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_the_tests(environment: dict[str, str]) -> None:
    chosen = ("known_tensors_after_a_restore", "training_with_checkpoints", "a_store_that_is_full")
    assert "test-gpu: 3 passed, 0 failed" in run(environment, "tests.gpu", *chosen)


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_the_benchmark(environment: dict[str, str], tmp_path: Path) -> None:
    output = tmp_path / "results.md"
    run(environment, "bench.gpu", str(output))
    rows = [line for line in output.read_text().splitlines() if line.startswith("| 1 GiB |")]
    assert len(rows) == 1
    # Every figure is one, and none is zero.
    figures = [float(cell) for cell in rows[0].strip("| ").split(" | ")[1:]]
    assert min(figures) > 0


def test_a_machine_without_a_gpu(environment: dict[str, str]) -> None:
    if Path("/dev/nvidiactl").exists():
        pytest.skip("this machine has one")
    del environment["CHECKPOINT_AGENT_CUDA_LIBRARIES"]
    for module in ("tests.gpu", "bench.gpu"):
        [line] = run(environment, module).splitlines()
        assert "no GPU here" in line
