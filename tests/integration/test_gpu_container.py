"""Containers with processes on GPUs: checkpointed, and back on them, whatever goes wrong.

The driver is a stand-in (tests/fakes/cuda), the processes are real, and CRIU refuses them while
they have something on a GPU.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from contextlib import aclosing
from pathlib import Path

import pytest

from agent.chunks import read_manifest
from agent.config import find_tools
from agent.errors import DumpFailed, GpuStuck, RestoreFailed, StoreFailed, TargetNotCheckpointable
from agent.host.cuda import Cuda, CudaState
from agent.operation.recovery import recover
from bench.bundle import COUNTER
from bench.reports import Counter
from bench.runc import Container
from tests.fakes.slow_store import Gate, gated
from tests.fakes.stores import failing
from tests.gpus import (
    GPU,
    MODEL,
    OTHER,
    OTHER_GPU,
    FakeGpus,
    GpuProcess,
    add_gpu_processes,
    fake_gpus,
    gpu_processes_of,
)
from tests.integration.lab import Lab
from tests.waiting import eventually_async

pytestmark = [pytest.mark.root, pytest.mark.criu]


@pytest.fixture
def gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeGpus:
    made = fake_gpus(tmp_path / "driver")
    monkeypatch.setenv("CHECKPOINT_AGENT_CUDA_LIBRARIES", str(made.libraries))
    return made


def started(lab: Lab, gpus: FakeGpus, processes: int = 2) -> Container:
    bundle = lab.runc.build(COUNTER)
    add_gpu_processes(gpus, bundle, processes)
    return lab.runc.start(bundle)


def assert_computing(container: Container) -> list[GpuProcess]:
    """Its processes compute, on a memory in which nothing is wrong."""
    found = gpu_processes_of(container.pid())
    for each in found:
        each.goes_on()
    return found


async def test_it_computes_on_and_its_checkpoint_does_too(lab: Lab, gpus: FakeGpus) -> None:
    container = started(lab, gpus)
    before = min(each.steps for each in assert_computing(container))

    result = await lab.checkpoint(container)

    assert {"cuda_lock", "cuda_checkpoint", "cuda_restore"} <= result.phases.keys()
    assert 0 < result.cuda_seconds < result.frozen_seconds
    assert result.gpus == [MODEL]
    later = max(each.steps for each in assert_computing(container))
    gpus_taken = read_manifest(lab.store, result.checkpoint_id).gpus
    assert gpus_taken is not None
    assert [(each.uuid, each.used) for each in gpus_taken.devices] == [(GPU, True)]
    assert gpus_taken.members == [container.id]
    container.delete()

    await lab.restore(result.checkpoint_id, container=container.id)

    again = assert_computing(container)
    assert len(again) == 2
    assert before <= min(each.steps for each in again)
    # From where it was, and not from where it had got to.
    assert container.report("counter").read(Counter.RESUMES) == 1
    assert later > 0
    assert lab.operations() == []


async def test_it_can_be_stopped_with_its_checkpoint(lab: Lab, gpus: FakeGpus) -> None:
    container = started(lab, gpus)
    assert_computing(container)
    result = await lab.checkpoint(container, stop=True)
    assert container.status() == "absent"
    restored = await lab.restore(result.checkpoint_id)
    assert restored.phases["cuda_restore"] > 0
    assert_computing(container)


async def test_another_gpu_of_the_same_kind_will_do(lab: Lab, gpus: FakeGpus) -> None:
    container = started(lab, gpus, 1)
    assert_computing(container)
    result = await lab.checkpoint(container, stop=True)
    gpus.install(f"{OTHER} 81920 0 {MODEL}")
    await lab.restore(result.checkpoint_id)
    assert_computing(container)
    inventory = await _inventory()
    assert list(inventory) == [OTHER_GPU]
    assert inventory[OTHER_GPU] == 4 << 20


async def _inventory() -> dict[str, int]:
    async with aclosing(Cuda()) as cuda:
        found = await cuda.inventory()
    return {gpu.uuid: sum((gpu.used_bytes or {}).values()) for gpu in found.gpus}


async def test_another_kind_of_gpu_will_not(lab: Lab, gpus: FakeGpus) -> None:
    container = started(lab, gpus, 1)
    assert_computing(container)
    result = await lab.checkpoint(container, stop=True)
    gpus.install(f"{OTHER} 81920 0 NVIDIA A100")
    with pytest.raises(RestoreFailed, match=f"were 1 x {MODEL}; this machine has 1 x NVIDIA A100"):
        await lab.restore(result.checkpoint_id)
    assert container.status() == "absent"
    assert lab.operations() == []


async def test_another_version_of_the_driver_will_not(lab: Lab, gpus: FakeGpus) -> None:
    container = started(lab, gpus, 1)
    assert_computing(container)
    result = await lab.checkpoint(container, stop=True)
    gpus.say("driver", "590.44.01")
    with pytest.raises(RestoreFailed, match=r"driver 580\.65\.06, .* this machine has 590\.44\.01"):
        await lab.restore(result.checkpoint_id)
    assert container.status() == "absent"


@pytest.mark.parametrize("fault", ["lock error 600", "checkpoint error 2", "checkpoint crash 0"])
async def test_when_the_driver_fails_all_goes_on(lab: Lab, gpus: FakeGpus, fault: str) -> None:
    container = started(lab, gpus)
    first, _ = assert_computing(container)
    first.suffer(fault)
    with pytest.raises(DumpFailed, match=fault.partition(" ")[0]):
        await lab.checkpoint(container)
    first.recover()
    assert_computing(container)
    assert (lab.stored(), lab.operations()) == ([], [])


async def test_when_the_store_fails_all_goes_on(lab: Lab, gpus: FakeGpus) -> None:
    container = started(lab, gpus)
    assert_computing(container)
    with pytest.raises(StoreFailed):
        await lab.with_store(failing(lab.store, "write")).checkpoint(container)
    assert_computing(container)
    assert lab.operations() == []


async def test_what_somebody_else_holds_is_left_alone(lab: Lab, gpus: FakeGpus) -> None:
    container = started(lab, gpus)
    first, _ = assert_computing(container)
    async with aclosing(Cuda()) as cuda:
        await cuda.lock(first.pid, 5)
        with pytest.raises(TargetNotCheckpointable, match=f"process {first.pid} is locked"):
            await lab.checkpoint(container)
        assert await cuda.state(first.pid) is CudaState.LOCKED
        await cuda.unlock(first.pid)
    assert_computing(container)


async def test_one_that_does_not_come_back_has_its_checkpoint_and_is_tried_again(
    lab: Lab, gpus: FakeGpus
) -> None:
    container = started(lab, gpus)
    first, second = assert_computing(container)
    first.suffer("restore error 2")
    with pytest.raises(GpuStuck, match="CUDA_ERROR_OUT_OF_MEMORY") as raised:
        await lab.checkpoint(container)
    second.goes_on()
    first.stands_still()
    assert raised.value.path is not None
    assert len(lab.operations()) == 1
    [found] = await recover(tools=find_tools, state_dir=lab.state_dir)
    assert found.problem is not None
    assert "OUT_OF_MEMORY" in found.problem
    first.recover()
    [found] = await recover(tools=find_tools, state_dir=lab.state_dir)
    assert found.problem is None
    assert_computing(container)
    assert lab.operations() == []
    container.delete()
    await lab.restore(Path(raised.value.path).name, container=container.id)
    assert_computing(container)


async def test_a_restore_that_fails_on_the_gpu_leaves_nothing(lab: Lab, gpus: FakeGpus) -> None:
    container = started(lab, gpus, 1)
    [process] = assert_computing(container)
    result = await lab.checkpoint(container)
    container.delete()
    box = container.bundle.path / "rootfs/tmp/cuda" / f"{process.inner}.fault"
    box.write_text("restore error 2")
    with pytest.raises(RestoreFailed, match="not back on its GPUs"):
        await lab.restore(result.checkpoint_id, container=container.id)
    assert container.status() == "absent"
    assert lab.operations() == []


async def test_an_agent_killed_in_the_middle_is_made_good(
    lab: Lab, gpus: FakeGpus, tmp_path: Path
) -> None:
    container = started(lab, gpus)
    processes = assert_computing(container)
    processes[0].suffer("checkpoint slow 60000")
    agent = _agent(lab, container, tmp_path / "images")
    try:
        await eventually_async(lambda: not processes[1].has_device, "being off the GPU")
        agent.send_signal(signal.SIGKILL)
    finally:
        agent.kill()
        agent.wait()
    processes[0].recover()
    [found] = await recover(tools=find_tools, state_dir=lab.state_dir)
    assert found.problem is None
    assert_computing(container)
    assert lab.operations() == []


def _agent(lab: Lab, container: Container, store: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "agent", "checkpoint", container.id,
         "--runc-root", lab.runc.path, "--store", store],
        env=os.environ | {"CHECKPOINT_AGENT_STATE_DIR": str(lab.state_dir)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip


async def test_giving_up_brings_all_back(lab: Lab, gpus: FakeGpus) -> None:
    container = started(lab, gpus)
    assert_computing(container)
    gate = Gate()
    slow = lab.with_store(gated(lab.store, "write", gate))
    work = asyncio.create_task(slow.checkpoint(container))
    await eventually_async(lambda: gate.waiting > 0, "storing")
    work.cancel()
    gate.open()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert_computing(container)
