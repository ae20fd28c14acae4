"""GPUs as the daemon's inventory, `doctor` and a person see them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest

from agent.daemon import gpus as module
from agent.daemon.gpus import NodeGpus
from agent.daemon.node import Node
from agent.doctor.gpus import gpus_finding
from agent.host.cuda import Cuda, Gpu, Inventory
from agent.manifest import Host
from agent.settings import Settings
from tests.gpus import GPU, MODEL, OTHER, UUID, FakeGpus, fake_gpus
from tests.waiting import PATIENCE

HOST = Host(name="n", kernel="6", architecture="x86_64", criu="4", runc=None)


@pytest.fixture
def gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeGpus:
    made = fake_gpus(tmp_path / "driver")
    monkeypatch.setenv("CHECKPOINT_AGENT_CUDA_LIBRARIES", str(made.libraries))
    return made


@asynccontextmanager
async def looking(watch: NodeGpus) -> AsyncIterator[asyncio.Task[None]]:
    """While it looks."""
    task = asyncio.create_task(watch.run())
    try:
        yield task
    finally:
        task.cancel()


async def test_a_node_tells_of_its_gpus(gpus: FakeGpus) -> None:
    async with aclosing(Cuda()) as cuda:
        watch = NodeGpus(cuda)
        async with looking(watch), asyncio.timeout(PATIENCE):
            while watch.inventory == Inventory():
                await asyncio.sleep(0.01)
    [gpu] = Node(Settings(), HOST, lambda: (0, 0), watch).info().gpus
    assert (gpu.uuid, gpu.model, gpu.memory, gpu.driver) == (GPU, MODEL, 80 << 30, "580.65.06")


async def test_a_driver_that_does_not_answer_keeps_nothing_up(
    gpus: FakeGpus, caplog: pytest.LogCaptureFixture
) -> None:
    (gpus.libraries / "libnvidia-ml.so.1").unlink()
    async with aclosing(Cuda()) as cuda:
        watch = NodeGpus(cuda)
        async with looking(watch) as task, asyncio.timeout(PATIENCE):
            while "the GPU driver does not tell" not in caplog.text:
                await asyncio.sleep(0.01)
            assert not task.done()
    assert watch.inventory == Inventory()


async def test_gpus_are_gone_with_their_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    # Seen at the first look.
    monkeypatch.setattr(module, "_INTERVAL", 3600.0)
    cuda = Cuda()
    if cuda.is_there:
        pytest.skip("this machine has a driver")
    watch = NodeGpus(cuda)
    watch.inventory = Inventory("580.65.06", (Gpu(GPU, MODEL, 80 << 30),))
    async with looking(watch), asyncio.timeout(PATIENCE):
        while watch.inventory != Inventory():
            await asyncio.sleep(0.01)


async def test_doctor_names_them(gpus: FakeGpus) -> None:
    gpus.install(*[f"{uuid} 81920 0 {MODEL}" for uuid in (UUID, OTHER)])
    found = await gpus_finding()
    assert found.status == "ok"
    assert found.detail == f"2 x {MODEL} (81920 MiB), driver 580.65.06"


async def test_doctor_warns_of_parted_ones(gpus: FakeGpus) -> None:
    gpus.install(f"{UUID} 81920 1 {MODEL}")
    found = await gpus_finding()
    assert (found.status, "MIG" in found.advice) == ("warn", True)


async def test_doctor_warns_of_a_driver_without_the_calls(
    gpus: FakeGpus, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gpus.say("driver", "565.57.01")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    found = await gpus_finding()
    assert (found.status, "cuda-checkpoint" in found.advice) == ("warn", True)
    program = tmp_path / "bin/cuda-checkpoint"
    program.parent.mkdir()
    program.touch(0o755)
    assert (await gpus_finding()).status == "ok"


async def test_doctor_says_what_to_do_when_the_libraries_are_somewhere_else(
    gpus: FakeGpus,
) -> None:
    (gpus.libraries / "libnvidia-ml.so.1").unlink()
    found = await gpus_finding()
    assert found.status == "warn"
    assert "CHECKPOINT_AGENT_CUDA_LIBRARIES" in found.advice


async def test_doctor_of_a_machine_without_one() -> None:
    if Cuda().is_there:
        pytest.skip("this machine has a driver")
    found = await gpus_finding()
    assert (found.status, found.detail) == ("ok", "none")
