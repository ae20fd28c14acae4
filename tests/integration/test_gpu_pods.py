"""A pod that computes on a GPU, and comes back onto one in another pod."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gpus import MODEL, UUID, FakeGpus, GpuProcess, fake_gpus, gpu_processes_of
from tests.restore_nodes import Handler, RestoreNode, asking, restore_handler, restore_node
from tests.servers.cri_pods import ContainerSpec, Pod
from tests.waiting import eventually

pytestmark = [pytest.mark.root, pytest.mark.criu]

# The volume is empty at first; the program is what comes into it last.
_COMMAND = (
    "/bin/sh",
    "-c",
    f"until [ -e /gpu/program ]; do sleep 0.05; done; exec /gpu/program /gpu/libcuda.so.1 4 {UUID}",
)
_VOLUMES = {"gpu": "/gpu"}


@pytest.fixture(scope="module")
def handler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Handler]:
    if os.geteuid() != 0:
        pytest.skip("containers need root")
    with restore_handler(tmp_path_factory.mktemp("handler")) as made:
        yield made


@pytest.fixture
def gpus(tmp_path: Path) -> FakeGpus:
    return fake_gpus(tmp_path / "driver")


@pytest.fixture
def node(handler: Handler, tmp_path: Path, gpus: FakeGpus) -> Iterator[RestoreNode]:
    env = {"CHECKPOINT_AGENT_CUDA_LIBRARIES": str(gpus.libraries)}
    with restore_node(handler, tmp_path, env=env) as made:
        made.daemon.start()
        made.daemon.wait_ready()
        yield made


def computing(pod: Pod) -> GpuProcess:
    """Its process, which computes."""
    state = pod.server.runc_root / pod.containers["app"] / "state.json"
    pid = int(json.loads(state.read_text())["init_process_pid"])
    eventually(lambda: len(gpu_processes_of(pid)) == 1, "the program")
    [process] = gpu_processes_of(pid)
    process.goes_on()
    return process


def checkpointed(node: RestoreNode, gpus: FakeGpus) -> tuple[str, int]:
    """The path of a checkpoint of a pod that is gone, and how far it had got before."""
    pod = node.run("gpu", [ContainerSpec("app", volumes=_VOLUMES, command=_COMMAND)])
    volume = pod.volume("gpu")
    shutil.copy(gpus.libraries / "libcuda.so.1", volume)
    shutil.copy(gpus.program, volume / "program.new")
    (volume / "program.new").rename(volume / "program")
    before = computing(pod).steps
    path = node.checkpoint(pod)
    computing(pod)
    pod.remove()
    return path, before


def test_it_comes_back_onto_a_gpu(node: RestoreNode, gpus: FakeGpus) -> None:
    path, before = checkpointed(node, gpus)
    again = node.run("gpu-2", [asking("app", path, volumes=_VOLUMES, command=_COMMAND)])
    assert node.record(again, "app")["state"] == "restored"
    assert computing(again).steps > before
    assert node.operations() == []


@pytest.mark.parametrize("what", ["its GPU", "the driver"])
def test_where_it_cannot_it_starts_cold(node: RestoreNode, gpus: FakeGpus, what: str) -> None:
    """Because there is no such GPU; or because the driver fails when CRIU has brought it back."""
    path, _ = checkpointed(node, gpus)
    if what == "its GPU":
        gpus.install(f"{UUID[::-1]} 81920 0 {MODEL} with something else")
        reason = "this machine has 1 x"
    else:
        # Only its list of GPUs is asked for before.
        gpus.say("version", "12040")
        node.daemon.stop()
        node.daemon.start()
        node.daemon.wait_ready()
        reason = "it is not back on its GPUs"
    again = node.run("gpu-2", [asking("app", path, volumes=_VOLUMES, command=_COMMAND)])
    record = node.record(again, "app")
    assert record["state"] == "cold"
    assert reason in record["reason"]
    eventually(lambda: node.operations() == [], "everything being cleaned up")
