"""What a pod pays that uses no GPU: on a machine without a driver, and on one with."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, aclosing
from pathlib import Path

import psutil
import pytest

from agent.gpu import find_processes
from agent.host.cuda import Cuda
from tests.gpus import fake_gpus

PROCESSES = 20
ROUNDS = 25


async def _best(cuda: Cuda, pids: list[int]) -> float:
    """Seconds of the processor in the best of some rounds: others may want it too."""
    seconds = []
    for _ in range(ROUNDS):
        began = time.process_time()
        assert await find_processes(cuda, pids) == []
        seconds.append(time.process_time() - began)
    return min(seconds)


def _reading(pids: list[int]) -> float:
    """What it costs anyway: their mappings read once by whoever wants them."""
    seconds = []
    for _ in range(ROUNDS):
        began = time.process_time()
        for pid in pids:
            Path(f"/proc/{pid}/maps").read_bytes()
        seconds.append(time.process_time() - began)
    return min(seconds)


@pytest.fixture
def pids() -> Iterator[list[int]]:
    """Of processes that do nothing."""
    with ExitStack() as stack:
        made = []
        for _ in range(PROCESSES):
            process = stack.enter_context(subprocess.Popen(["sleep", "60"]))
            stack.callback(process.kill)
            made.append(process.pid)
        yield made


async def test_a_pod_without_gpus_asks_no_driver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pids: list[int]
) -> None:
    if Cuda().is_there:
        pytest.skip("this machine has a driver")
    without = await _best(Cuda(), pids)
    gpus = fake_gpus(tmp_path / "driver")
    monkeypatch.setenv("CHECKPOINT_AGENT_CUDA_LIBRARIES", str(gpus.libraries))
    async with aclosing(Cuda()) as cuda:
        assert cuda.is_there
        before = psutil.Process().children()
        present = await _best(cuda, pids)
        # No helper was started for it, which alone takes 100 ms.
        assert psutil.Process().children() == before
    read = _reading(pids)
    assert without < present / 5
    assert present < 3 * read
