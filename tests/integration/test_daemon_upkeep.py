"""The daemon looks after pods by itself: heartbeats while it runs, a drain when its node goes."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.config import find_tools
from agent.store.file import FileStore
from bench.bundle import COUNTER, memory
from bench.pods import run_container
from bench.reports import wait_until
from bench.runc import Container
from tests.daemons import Daemon, Tables, daemon_in
from tests.fakes.hooked_criu import HookedCriu
from tests.integration.aftermath import assert_unharmed, is_frozen
from tests.integration.heartbeats import EVERY, manifests, pod_of
from tests.integration.lab import Lab
from tests.pod_checks import assert_pod_unharmed
from tests.servers.containerd import ContainerdServer, containerd_server
from tests.servers.kubernetes import kubernetes_server
from tests.servers.metadata import metadata_server

pytestmark = [pytest.mark.root, pytest.mark.criu]

OPTED_IN = {"checkpoint-agent/drain": "true", "checkpoint-agent/kind": "simple"}
# A test makes as much pressure as it can.
CALM = {"cpu_pressure": 100.0, "memory_pressure": 100.0, "io_pressure": 100.0, "store_free": 0.0}


@contextmanager
def daemon_of(
    lab: Lab, drain: dict[str, object], *, criu: HookedCriu | None = None, **more: dict[str, object]
) -> Iterator[Daemon]:
    """A daemon in the lab that is ready; no file of the machine's drains it."""
    tables: Tables = {
        "pods": {"runc_roots": [str(lab.runc.path)]},
        "checkpoint": {"concurrency": 1},
        "heartbeat": {"minimum_seconds": 0.5, **CALM},
        "drain": {"file": str(lab.directory / "drain"), **drain},
        **more,
    }
    env = {} if criu is None else {"CHECKPOINT_AGENT_CRIU": str(criu.program)}
    with daemon_in(lab.directory, tables, env) as daemon:
        daemon.start()
        daemon.wait_ready()
        yield daemon


def three_pods(lab: Lab) -> tuple[Container, Container, Container]:
    """A big one and a small one that opted in, and one that did not."""
    big = run_container(lab.runc, "big", "app", COUNTER, memory(96), annotations=OPTED_IN)
    return big, pod_of(lab, "small", OPTED_IN), pod_of(lab, "none", {})


def pods(lab: Lab) -> list[str]:
    """Whose they are."""
    return [each.pod.name for each in manifests(lab.store) if each.pod is not None]


def test_stopping_it_drains_where_that_means_that_the_node_goes(lab: Lab) -> None:
    containers = three_pods(lab)
    with daemon_of(lab, {"on_stop": True}) as daemon:
        assert daemon.stop() == 0
        (said,) = daemon.lines("drained")
    assert (said["pods"], said["ready"]) == (2, 2)
    assert pods(lab) == ["small", "big"]
    for container in containers:
        assert_unharmed(container)


def test_who_is_in_a_hurry_ends_the_drain_too(lab: Lab) -> None:
    containers = three_pods(lab)
    criu, _ = lab.hook("post-dump")
    with daemon_of(lab, {"on_stop": True}, criu=criu) as daemon:
        daemon.signal(signal.SIGTERM)
        wait_until(criu.reached, "the drain's first dump")
        wait_until(lambda: _hurry(daemon), "the daemon hurrying")
        criu.release()
        assert daemon.wait() == 0
        assert daemon.lines("drained") == []
    assert pods(lab) == []
    for container in containers:
        assert not is_frozen(container)
        assert_unharmed(container)


def _hurry(daemon: Daemon) -> bool:
    """Signal again; half a second after the first one it counts."""
    daemon.signal(signal.SIGTERM)
    return bool(daemon.lines("hurrying; still nothing stays frozen"))


def test_a_machine_that_the_cloud_takes_back_is_drained(lab: Lab) -> None:
    containers = three_pods(lab)
    with (
        metadata_server() as cloud,
        daemon_of(lab, {"metadata": "gcp", "metadata_url": cloud.url}) as daemon,
    ):
        wait_until(lambda: bool(cloud.asked), "the daemon asking")
        assert pods(lab) == []
        cloud.announce(30.0)
        wait_until(lambda: bool(daemon.lines("drained")), "the drain")
        assert pods(lab) == ["small", "big"]
        figures = daemon.get("/metrics")
        assert 'checkpoint_agent_drain_pods_total{outcome="ready"} 2.0' in figures
        assert "checkpoint_agent_draining 1.0" in figures
        assert daemon.stop() == 0
    for container in containers:
        assert_unharmed(container)


def test_it_beats_and_stopping_it_is_no_drain_unless_somebody_says_so(lab: Lab) -> None:
    container = pod_of(lab, "web", EVERY)
    pod_of(lab, "nonsense", {"checkpoint-agent/heartbeat": "\u202eevery\n5 minutes"})
    pod_of(lab, "drained", OPTED_IN)
    with daemon_of(lab, {}) as daemon:
        wait_until(lambda: len(manifests(lab.store)) >= 2, "two heartbeats")
        (refused,) = daemon.lines("no heartbeat for a pod")
        assert "\\u202e" in refused["reason"]
        assert "heartbeat_refused_pods 1.0" in daemon.get("/metrics")
        assert daemon.stop() == 0
    assert {each.reason for each in manifests(lab.store)} == {"heartbeat"}
    assert set(pods(lab)) == {"web"}
    assert_unharmed(container)


def test_a_node_that_is_cordoned_is_drained(lab: Lab, tmp_path: Path) -> None:
    containers = three_pods(lab)
    place = tmp_path / "cluster"
    place.mkdir()
    with kubernetes_server(place) as cluster:
        cluster.store.add("nodes", "", {"metadata": {"name": "node-1.internal"}, "spec": {}})
        asking: dict[str, object] = {"kubeconfig": str(cluster.kubeconfig())}
        with daemon_of(lab, {"node": "node-1.internal"}, cluster=asking) as daemon:
            wait_until(lambda: cluster.count("watch", "nodes") > 0, "the daemon watching")
            cluster.store.change(
                "nodes", "", "node-1.internal", lambda node: node["spec"].update(unschedulable=True)
            )
            wait_until(lambda: bool(daemon.lines("drained")), "the drain")
            assert pods(lab) == ["small", "big"]
            assert daemon.stop() == 0
            # Its connection does not hold up its end.
            assert daemon.lines("failed while it was stopped") == []
    for container in containers:
        assert_unharmed(container)


@pytest.fixture
def noting() -> Iterator[ContainerdServer]:
    """A containerd with a handler that hands annotations on to runc."""
    with containerd_server(handlers={"noting": find_tools().require_runc()}) as server:
        yield server


def test_a_pod_of_containerd_says_so_in_its_own_annotations(
    tmp_path: Path, noting: ContainerdServer
) -> None:
    asked = {"checkpoint-agent/heartbeat": "1s", "checkpoint-agent/keep": "1"}
    pod = noting.run_pod("web", handler="noting", annotations=asked)
    noting.run_pod("quiet", handler="noting")
    tables: Tables = {
        "pods": {"runc_roots": [str(noting.runc_root)]},
        "heartbeat": {"minimum_seconds": 0.5, **CALM},
        "drain": {"file": str(tmp_path / "drain")},
    }
    with daemon_in(tmp_path, tables) as daemon:
        daemon.start()
        daemon.wait_ready()
        wait_until(
            lambda: bool(daemon.lines("a newer heartbeat has replaced it: deleted")), "a deletion"
        )
        assert daemon.stop() == 0
    made = manifests(FileStore(daemon.store))
    # One was being made, perhaps, while the other one was the newest.
    assert 1 <= len(made) <= 2
    # Its writable layers come with it.
    assert {each.kind for each in made} == {"rootfs"}
    assert {each.pod.uid for each in made if each.pod} == {pod.uid}
    assert_pod_unharmed(pod)
