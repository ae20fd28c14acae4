"""Which GPUs a checkpoint tells of, and which one of them comes back onto."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from agent.checkpoint.gpus import record_gpus, with_gpu_processes
from agent.checkpoint.subject import Subject
from agent.errors import RestoreFailed, TargetNotCheckpointable
from agent.gpu import GpuProcess
from agent.host.cuda import Cuda
from agent.manifest import Gpu, Gpus, Manifest
from agent.restore.gpus import GpuPlan
from agent.targets import ProcessTarget
from tests.gpus import MODEL, UUID, FakeGpus, fake_gpus, gpu_process, process_with_devices

pytestmark = pytest.mark.root

# A machine with as many, in the order of their nodes' numbers.
UUIDS = [uuid.uuid4() for _ in range(8)]


@pytest.fixture
def gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeGpus:
    made = fake_gpus(tmp_path / "driver")
    made.install(*(f"{each.hex} 81920 0 {MODEL}" for each in UUIDS))
    monkeypatch.setenv("CHECKPOINT_AGENT_CUDA_LIBRARIES", str(made.libraries))
    return made


@pytest.fixture
async def cuda(gpus: FakeGpus) -> AsyncIterator[Cuda]:
    made = Cuda()
    yield made
    await made.aclose()


def subject(pid: int) -> Subject:
    target = ProcessTarget(pid)
    return Subject(target=target, pid=pid, started=1, gpu_processes=(GpuProcess(pid, 1),))


async def test_a_container_saw_some_of_the_machines_gpus(cuda: Cuda) -> None:
    """A map of them names these, and none that its processes have never seen."""
    with process_with_devices() as pid:
        found = await record_gpus(cuda, {"m": subject(pid)})
    assert found is not None
    assert [gpu.uuid for gpu in found.devices] == [f"GPU-{UUIDS[at]}" for at in (3, 5)]


async def test_who_has_no_nodes_may_have_seen_all(cuda: Cuda) -> None:
    with process_with_devices() as pid:
        both = {"m": subject(pid), "n": subject(999_999_999)}
        found = await record_gpus(cuda, both)
    assert found is not None
    assert len(found.devices) == len(UUIDS)


async def test_two_that_fit_into_the_machines_memory_one_by_one(
    cuda: Cuda, gpus: FakeGpus, tmp_path: Path
) -> None:
    gpus.install(f"{UUID} 81920 0 {MODEL}")
    most = psutil.virtual_memory().available * 6 // 10
    with gpu_process(gpus, tmp_path / "one") as one, gpu_process(gpus, tmp_path / "two") as two:
        for each in (one, two):
            box = each.root / "tmp/cuda" / f"{each.inner}.device"
            box.write_text(f"{UUID} {most}\n")
            assert await record_gpus(cuda, {"m": subject(each.pid)})
        with pytest.raises(TargetNotCheckpointable, match=r"MiB on its GPUs.* left within"):
            await record_gpus(cuda, {"m": subject(one.pid), "n": subject(two.pid)})


async def test_a_worker_that_has_inherited_a_gpu_is_refused(cuda: Cuda) -> None:
    with process_with_devices() as pid:
        [found] = await with_gpu_processes(cuda, [replace(subject(pid), gpu_processes=())])
        with pytest.raises(TargetNotCheckpointable, match=f"process {pid} has a GPU mapped"):
            await record_gpus(cuda, {"m": found})


def manifest(*members: str, driver: str = "580.65.06") -> Manifest:
    """Of members that have used the first GPU."""
    device = Gpu(uuid=f"GPU-{UUIDS[0]}", model=MODEL, memory_bytes=80 << 30, used=True)
    taken = Gpus(driver=driver, devices=[device], members=list(members))
    return Manifest.model_construct(checkpoint_id="c", pod=None, gpus=taken)


def bundle(path: Path, *minors: int) -> Path:
    """One that was given these GPUs, as CDI gives them."""
    devices = [{"path": "/dev/nvidiactl", "type": "c", "major": 195, "minor": 255}]
    devices += [
        {"path": f"/dev/nvidia{minor}", "type": "c", "major": 195, "minor": minor}
        for minor in minors
    ]
    path.mkdir()
    config = {"root": {"path": "rootfs"}, "linux": {"devices": devices}}
    (path / "config.json").write_text(json.dumps(config))
    return path


async def test_a_container_comes_back_onto_the_gpu_that_it_was_given(
    cuda: Cuda, tmp_path: Path
) -> None:
    plan = await GpuPlan.make(cuda, manifest("m"), {"m": bundle(tmp_path / "m", 4)})
    assert plan.devices == {f"GPU-{UUIDS[0]}": f"GPU-{UUIDS[4]}"}


async def test_one_that_was_given_none_by_name_goes_where_it_was(
    cuda: Cuda, tmp_path: Path
) -> None:
    """The older hook's containers, process trees, and a part of those that had GPUs."""
    for bundles in ({"m": bundle(tmp_path / "m")}, {"m": None}):
        assert (await GpuPlan.make(cuda, manifest("m"), bundles)).devices == {}
    part = {"m": bundle(tmp_path / "part", 4), "other": None}
    plan = await GpuPlan.make(cuda, manifest("m", "n"), part)
    assert plan.members == {"m"}
    assert plan.devices == {}


async def test_a_driver_that_cannot_do_it_is_told_of_before_anything_is_started(
    cuda: Cuda, gpus: FakeGpus, tmp_path: Path
) -> None:
    gpus.say("driver", "570.86.10")
    with pytest.raises(RestoreFailed, match="cannot do"):
        await GpuPlan.make(
            cuda, manifest("m", driver="570.86.10"), {"m": bundle(tmp_path / "m", 4)}
        )
