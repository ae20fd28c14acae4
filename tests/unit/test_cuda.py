"""The driver through its helper process: real bindings, real processes, no GPU."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psutil
import pytest

from agent.host.cuda import Cuda, CudaFailed, CudaState, Gpu, Inventory
from agent.host.cuda.channel import Channel, HelperGone
from tests.gpus import (
    GPU,
    MODEL,
    OTHER,
    OTHER_GPU,
    UUID,
    FakeGpus,
    GpuProcess,
    fake_gpus,
    gpu_process,
)
from tests.waiting import PATIENCE

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> FakeGpus:
    return fake_gpus(tmp_path_factory.mktemp("gpus") / "driver")


@pytest.fixture
def gpus(built: FakeGpus) -> Iterator[FakeGpus]:
    yield built
    built.install(f"{UUID} 81920 0 {MODEL}")
    for name in ("version", "driver", "mps", "blind"):
        (built.libraries / name).unlink(missing_ok=True)


@pytest.fixture
def process(gpus: FakeGpus, tmp_path: Path) -> Iterator[GpuProcess]:
    with gpu_process(gpus, tmp_path / "root") as made:
        yield made


@pytest.fixture
async def cuda(gpus: FakeGpus, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Cuda]:
    monkeypatch.setenv("CHECKPOINT_AGENT_CUDA_LIBRARIES", str(gpus.libraries))
    made = Cuda()
    yield made
    await made.aclose()
    assert helpers() == []


def helpers() -> list[psutil.Process]:
    """Helper processes of this test that run."""
    return [each for each in psutil.Process().children(recursive=True) if _is_helper(each)]


def _is_helper(process: psutil.Process) -> bool:
    try:
        return "agent.host.cuda.helper" in process.cmdline()
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return False


async def test_there_and_back_again(cuda: Cuda, process: GpuProcess) -> None:
    assert await cuda.state(process.pid) is CudaState.RUNNING
    await cuda.lock(process.pid, 5)
    assert await cuda.state(process.pid) is CudaState.LOCKED
    process.stands_still()
    await cuda.checkpoint(process.pid, 30)
    assert await cuda.state(process.pid) is CudaState.CHECKPOINTED
    assert (await cuda.inventory()).gpus[0].used_bytes == {}
    await cuda.restore(process.pid, 30, {})
    process.stands_still()
    await cuda.unlock(process.pid)
    process.goes_on()


async def test_a_process_without_cuda_and_one_that_is_gone(cuda: Cuda) -> None:
    assert await cuda.state(psutil.Process().pid) is None
    assert await cuda.state(999_999_999) is None


async def test_who_only_starts_cuda_processes_is_none(cuda: Cuda, process: GpuProcess) -> None:
    """The driver tells a state of it too, but has no thread in it."""
    process.suffer("thread error 3")
    assert await cuda.state(process.pid) is None


async def test_what_gpus_there_are(cuda: Cuda, process: GpuProcess, gpus: FakeGpus) -> None:
    gpus.install(f"{UUID} 81920 0 {MODEL}", f"{OTHER} 40960 1 NVIDIA A100")
    second = Gpu(OTHER_GPU, "NVIDIA A100", 40 << 30, True, {}, minor=1)
    first = Gpu(GPU, MODEL, 80 << 30, False, {process.pid: 4 << 20}, minor=0)
    assert await cuda.inventory() == Inventory("580.65.06", (first, second))


async def test_gpus_that_do_not_tell_who_uses_them(cuda: Cuda, gpus: FakeGpus) -> None:
    gpus.say("blind")
    assert await cuda.inventory() == Inventory(
        "580.65.06", (Gpu(GPU, MODEL, 80 << 30, False, {}, minor=0),)
    )


async def test_without_a_driver_nothing_is_started() -> None:
    cuda = Cuda()
    if cuda.is_there:
        pytest.skip("this machine has a driver")
    assert await cuda.inventory() == Inventory()
    assert helpers() == []


async def test_another_gpu_takes_its_place(cuda: Cuda, process: GpuProcess) -> None:
    await cuda.lock(process.pid, 5)
    await cuda.checkpoint(process.pid, 30)
    with pytest.raises(CudaFailed, match="CUDA_ERROR_INVALID_VALUE"):
        await cuda.restore(process.pid, 30, {f"GPU-{OTHER}": GPU})
    await cuda.restore(process.pid, 30, {f"GPU-{OTHER}": GPU, GPU: f"GPU-{OTHER}"})
    await cuda.unlock(process.pid)
    process.goes_on()
    box = process.root / "tmp" / "cuda" / f"{process.inner}.device"
    assert box.read_text().split()[0] == OTHER


async def test_an_error_in_the_drivers_words(cuda: Cuda, process: GpuProcess) -> None:
    process.suffer("lock error 600")
    with pytest.raises(CudaFailed, match=r"lock of process .*: CUDA_ERROR_NOT_READY") as raised:
        await cuda.lock(process.pid, 0.1)
    assert raised.value.result == "CUDA_ERROR_NOT_READY"
    process.recover()
    with pytest.raises(CudaFailed, match="CUDA_ERROR_ILLEGAL_STATE"):
        await cuda.checkpoint(process.pid, 30)
    process.goes_on()


async def test_a_helper_that_crashes_is_replaced(cuda: Cuda, process: GpuProcess) -> None:
    process.suffer("lock crash 0")
    with pytest.raises(CudaFailed, match="helper process died"):
        await cuda.lock(process.pid, 5)
    process.recover()
    assert await cuda.state(process.pid) is CudaState.RUNNING
    process.goes_on()


@pytest.mark.parametrize("answer", ['{"id": 0, "val', "x" * 100_000])
async def test_an_answer_that_is_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, answer: str
) -> None:
    """Whoever waits is told at once, and not when its time is up."""
    helper = tmp_path / "python"
    helper.write_text(f"#!/bin/sh\nread line\nprintf %s '{answer}'\n")
    helper.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(helper))
    channel = await Channel.open(None)
    try:
        with pytest.raises(HelperGone):
            await channel.ask("start", 20, {})
    finally:
        await channel.close()


async def test_a_call_that_hangs_holds_up_no_other(
    cuda: Cuda, process: GpuProcess, gpus: FakeGpus, tmp_path: Path
) -> None:
    with gpu_process(gpus, tmp_path / "other") as other:
        assert await cuda.state(other.pid) is CudaState.RUNNING
        process.suffer("checkpoint hang 0")
        other.suffer("lock held 0")
        await cuda.lock(process.pid, 5)
        locking = asyncio.create_task(cuda.lock(other.pid, 60))
        await asyncio.sleep(0.05)
        with pytest.raises(CudaFailed, match=r"no answer within 0\.2 s"):
            await cuda.checkpoint(process.pid, 0.2)
        # By a new helper, while the old one still owes an answer.
        assert await cuda.state(process.pid) is CudaState.LOCKED
        assert len(helpers()) == 2
        other.recover()
        await locking
        assert await cuda.state(other.pid) is CudaState.LOCKED
        async with asyncio.timeout(PATIENCE):
            while len(helpers()) > 1:
                await asyncio.sleep(0.01)


async def test_a_driver_that_is_too_old(
    gpus: FakeGpus, cuda: Cuda, process: GpuProcess, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    gpus.say("version", "12040")
    with pytest.raises(CudaFailed, match=r"CUDA is 12\.4; without cuda-checkpoint in PATH"):
        await cuda.state(process.pid)


async def test_a_driver_that_comes_later(
    gpus: FakeGpus, cuda: Cuda, process: GpuProcess, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Libraries remember that there was none; whoever asks again is not told so for ever."""
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    (gpus.libraries / "gpus").unlink()
    with pytest.raises(CudaFailed, match="CUDA_ERROR_NO_DEVICE"):
        await cuda.state(process.pid)
    with pytest.raises(CudaFailed, match="inventory"):
        await cuda.inventory()
    gpus.install(f"{UUID} 81920 0 {MODEL}")
    assert await cuda.state(process.pid) is CudaState.RUNNING
    assert len((await cuda.inventory()).gpus) == 1


async def test_cuda_checkpoint_takes_over_for_an_old_driver(
    gpus: FakeGpus, cuda: Cuda, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "bin" / "cuda-checkpoint"
    program.parent.mkdir()
    program.write_text(
        f"""#!/bin/sh
echo "$*" >> {tmp_path}/asked
case "$*" in
*"--pid 7 "*) echo "Could not get state for process ID 7: initialization error" >&2; exit 1 ;;
*"--pid 9 "*) echo napping ;;
*get-state*) echo locked ;;
*restore*) echo "Could not restore: out of memory" >&2; exit 1 ;;
esac
"""
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    gpus.say("version", "12040")
    assert await cuda.state(7) is None
    assert await cuda.state(8) is CudaState.LOCKED
    await cuda.lock(8, 1.5)
    with pytest.raises(CudaFailed, match="a state unknown to the agent, 'napping'"):
        await cuda.state(9)
    with pytest.raises(CudaFailed, match="restore of process 8: Could not restore: out of memory"):
        await cuda.restore(8, 30, {"GPU-a": "GPU-b"})
    assert (tmp_path / "asked").read_text().splitlines() == [
        "--pid 7 --get-state",
        "--pid 8 --get-state",
        "--pid 8 --action lock --timeout 1500",
        "--pid 9 --get-state",
        "--pid 8 --action restore --device-map GPU-a=GPU-b",
    ]
    program.unlink()
    with pytest.raises(CudaFailed, match="cuda-checkpoint"):
        await cuda.unlock(8)
