"""A pod whose containers NVIDIA's runtime has filled, by its hook, comes back in another pod."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.nvidia import LIBRARIES, Driver, install_driver, nvidia_runtime
from tests.restore_nodes import HANDLER, Handler, RestoreNode, asking, restore_node
from tests.servers.containerd import containerd_server
from tests.servers.cri_pods import ContainerSpec, Pod

pytestmark = [pytest.mark.root, pytest.mark.criu]


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Driver:
    return install_driver(tmp_path_factory.mktemp("machine") / "driver", "570.124.06")


@pytest.fixture(scope="module")
def handler(tmp_path_factory: pytest.TempPathFactory, driver: Driver) -> Iterator[Handler]:
    if os.geteuid() != 0:
        pytest.skip("containers need root")
    directory = tmp_path_factory.mktemp("handler")
    wrapper = directory / HANDLER
    with containerd_server(handlers={HANDLER: nvidia_runtime(directory, driver, wrapper)}) as made:
        yield Handler(made, wrapper)


@pytest.fixture
def node(handler: Handler, tmp_path: Path) -> Iterator[RestoreNode]:
    with restore_node(handler, tmp_path) as made:
        made.daemon.start()
        made.daemon.wait_ready()
        yield made


def has_driver(pod: Pod, driver: Driver) -> bool:
    """Whether its container has the driver's library, as a mount."""
    state = pod.server.runc_root / pod.containers["app"] / "state.json"
    pid = int(json.loads(state.read_text())["init_process_pid"])
    path = f"{LIBRARIES}/libcuda.so.{driver.version}"
    mounts = Path(f"/proc/{pid}/mountinfo").read_text()
    seen = Path(f"/proc/{pid}/root{path}").read_bytes()
    return f" {path} " in mounts and seen == driver.content("libcuda")


@pytest.mark.parametrize("kind", ["simple", "rootfs"])
def test_it_comes_back(node: RestoreNode, driver: Driver, kind: str) -> None:
    """With a writable layer, which has the places for the mounts, and without."""
    # It has no file open that would be in the layer alone.
    command = ("/bin/sleep", "1000")
    pod = node.run("web", [ContainerSpec("app", command=command)])
    assert has_driver(pod, driver)
    path = node.checkpoint(pod, "--kind", kind)
    pod.remove()
    again = node.run("web-2", [asking("app", path, command=command)])
    assert node.record(again, "app")["state"] == "restored", node.record(again, "app")
    assert has_driver(again, driver)
