"""Processes that end on their way back onto their GPUs."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from agent.errors import RestoreFailed
from agent.gpu import Suspension, find_processes
from agent.host import process
from agent.host.cuda import Cuda
from agent.report import Phases
from agent.restore.gpus import GpuPlan
from tests.gpus import UUID, FakeGpus, GpuProcess, fake_gpus
from tests.waiting import eventually

pytestmark = pytest.mark.root


@pytest.fixture
def gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeGpus:
    made = fake_gpus(tmp_path / "driver")
    monkeypatch.setenv("CHECKPOINT_AGENT_CUDA_LIBRARIES", str(made.libraries))
    return made


@pytest.fixture
def first(gpus: FakeGpus, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The first process of a container: another one of it computes."""
    root = tmp_path / "root"
    (root / "tmp").mkdir(parents=True)
    for name in ("program", "libcuda.so.1"):
        shutil.copy(gpus.libraries / name, root)
    line = f"chroot {root} /program /libcuda.so.1 4 {UUID} & wait"
    quiet = subprocess.DEVNULL
    with subprocess.Popen(["sh", "-c", line], stdin=quiet, stdout=quiet, stderr=quiet) as made:
        eventually(lambda: process.tree(made.pid)[1:], "the program")
        [_, pid] = process.tree(made.pid)
        try:
            eventually(lambda: GpuProcess(pid, pid, root).has_begun, "computing")
            yield made
        finally:
            made.kill()
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
async def cuda(gpus: FakeGpus) -> AsyncIterator[Cuda]:
    made = Cuda()
    yield made
    await made.aclose()


async def test_a_container_whose_first_process_ends(
    cuda: Cuda, first: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    """The driver brings back the others, of a container that is over."""
    members = await find_processes(cuda, process.tree(first.pid))
    async with Suspension(cuda, members, Phases()) as suspension:
        suspension.stays = True
    [each] = members
    GpuProcess(each.pid, each.pid, tmp_path / "root").suffer("restore slow 1500")
    plan = GpuPlan(cuda, frozenset({"m"}), {})
    returning = asyncio.create_task(plan.bring_back("m", first.pid))
    await asyncio.sleep(0.7)
    first.kill()
    with pytest.raises(RestoreFailed, match="it ended on its way back"):
        await returning
