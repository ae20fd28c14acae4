"""From a request over HTTP to a new pod that goes on where the old one was, and that one again.

The API, the broker, the node's daemon, containerd, checkpoint-runc and CRIU are real; a stand-in
has the cluster's API server, scheduler and kubelet, which make pods of containerd (tests/kubelets).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.api_clusters import Clustered, clustered_on
from tests.api_stages import accepted
from tests.fakes.slow_store import Gate
from tests.kubelets import Kubelet, counted
from tests.nodes import CLUSTER, Node
from tests.restore_nodes import Handler, RestoreNode, restore_handler, restore_node
from tests.servers.cri_pods import Pod
from tests.servers.nats import NatsServer
from tests.waiting import eventually

pytestmark = [pytest.mark.root, pytest.mark.criu]

NAME = "node-7"

SPEC: dict[str, Any] = {
    "runtimeClassName": "checkpoint-runc",
    "containers": [
        {
            "name": "app",
            "image": "workloads",
            "env": [{"name": "CHECKPOINT_NAME", "value": "shop"}],
            "volumeMounts": [{"name": "work", "mountPath": "/work"}],
        },
        {"name": "side", "image": "workloads"},
    ],
    "volumes": [{"name": "work", "emptyDir": {}}],
}


@dataclass(frozen=True, slots=True)
class Site:
    """All of it."""

    clustered: Clustered
    node: RestoreNode
    kubelet: Kubelet

    def knows(self, pod: Pod) -> None:
        """Wait until the API knows a pod."""

        def known() -> bool:
            nodes = self.clustered.stage.api.get("/v2/nodes").json()
            return any(each["uid"] == pod.uid for node in nodes for each in node["pods"])

        eventually(known, f"the API knowing {pod.name}")

    def done(self, action_id: str) -> dict[str, Any]:
        """An action that has ended."""
        return self.clustered.stage.api.wait_state(action_id, "ready", "error")

    def ask(self, what: str, **body: object) -> str:
        """Post a request; the action's id."""
        return accepted(self.clustered.stage.api, what, body)


@pytest.fixture(scope="module")
def handler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Handler]:
    if os.geteuid() != 0:
        pytest.skip("containers need root")
    with restore_handler(tmp_path_factory.mktemp("handler")) as made:
        yield made


@pytest.fixture
def site(handler: Handler, broker: NatsServer, tmp_path: Path) -> Iterator[Site]:
    tables: dict[str, dict[str, object]] = {
        "node": {"cluster": CLUSTER, "name": NAME},
        "nats": {"url": broker.url, "ack_wait_seconds": 2},
    }
    (tmp_path / "node").mkdir()
    (tmp_path / "api").mkdir()
    with ExitStack() as stack:
        node = stack.enter_context(restore_node(handler, tmp_path / "node", tables))
        Node(node.daemon, broker, NAME).start()
        clustered = stack.enter_context(clustered_on(broker, tmp_path / "api"))
        yield Site(clustered, node, Kubelet(clustered.kubernetes, node, NAME))


def test_a_pod_of_two_containers_goes_on_in_new_pods(site: Site) -> None:
    pod, before = site.kubelet.run("web", SPEC), {"app": 0, "side": 0}
    pod.execute("app", "/bin/sh", "-c", "echo layer > /note; echo volume > /work/note")
    for number in (1, 2):
        site.knows(pod)
        before = {name: max(before[name], at) for name, at in counted(pod).items()}
        taken = site.done(site.ask("checkpoint", pod_id=pod.uid, kind="rootfs"))
        assert taken["status"] == "ready", taken["details"]
        site.kubelet.delete(pod.name)
        new = f"web-{number}"

        overrides = {"pod_name": new}
        action_id = site.ask(
            "restore", action_id=taken["action_id"], reason="manual", overrides=overrides
        )
        done = site.done(action_id)

        assert done["status"] == "ready", done["details"]
        pod = site.kubelet.wait(new)
        assert [step["state"] for step in done["timeline"]] == [
            "initialized", "processing", "ready",
        ]  # fmt: skip
        assert done["node_name"] == NAME
        assert done["details"]["pod"]["uid"] == pod.uid
        assert [each["name"] for each in done["outcome"]["members"]] == ["app", "side"]
        for name, at in before.items():
            assert site.node.record(pod, name)["state"] == "restored"
            assert pod.counter(name) >= at
        counted(pod)
        assert pod.execute("app", "/bin/cat", "/note", "/work/note") == "layer\nvolume\n"
    assert site.node.operations() == []


def test_a_checkpoint_that_is_gone_is_a_cold_start_and_an_error(site: Site) -> None:
    pod = site.kubelet.run("lost", SPEC)
    site.knows(pod)
    taken = site.done(site.ask("checkpoint", pod_id=pod.uid, kind="rootfs"))
    site.kubelet.delete("lost")
    manifest = Path(taken["details"]["path"].removeprefix("file://")) / "manifest.json"
    manifest.unlink()
    done = site.done(site.ask("restore", action_id=taken["action_id"], reason="manual"))
    assert done["status"] == "error"
    assert done["details"]["error"]["code"] == "started_cold", done["details"]
    counted(site.kubelet.wait("lost"))


def test_a_daemon_restarted_in_the_middle_still_tells(site: Site) -> None:
    """Between the first container and the second: both come back, and the action ends as ready."""
    pod = site.kubelet.run("twice", SPEC)
    site.knows(pod)
    taken = site.done(site.ask("checkpoint", pod_id=pod.uid, kind="rootfs"))
    site.kubelet.delete("twice")
    # The daemon goes when the thread goes that has started it: that has to be this one.
    gate = Gate()
    site.kubelet.between = gate
    action_id = site.ask("restore", action_id=taken["action_id"], reason="manual")
    eventually(gate.reached.is_set, "the first container")
    site.node.daemon.kill()
    site.node.daemon.start()
    site.node.daemon.wait_ready()
    gate.open()
    done = site.done(action_id)
    assert done["status"] == "ready", done["details"]
    counted(site.kubelet.wait("twice"))
