"""From a request over HTTP to frozen containers and back: nothing on the way is made up."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agent.config import find_tools
from agent.host.runc import load
from agent.targets import RuncTarget
from bench.reports import Counter, wait_until
from bench.runc import Container, RuncRoot
from tests.api_servers import Api, api_in
from tests.api_stages import accepted
from tests.cli_process import only_document, run_cli
from tests.fakes.hooked_criu import hooked_criu
from tests.nodes import Node, node_on
from tests.pod_checks import assert_pod_unharmed
from tests.runc_pods import run_container, uid_of
from tests.servers.containerd import ContainerdServer
from tests.servers.cri_pods import ContainerSpec, Pod
from tests.servers.nats import NatsServer

pytestmark = [pytest.mark.root, pytest.mark.criu]

TWO = (ContainerSpec("app", env={"CHECKPOINT_NAME": "nightly"}), ContainerSpec("side"))


@dataclass(frozen=True, slots=True)
class Cluster:
    """An API, and the one node that it has."""

    api: Api
    node: Node

    def wait_pod(self, uid: str) -> None:
        """Wait until the API knows a pod."""

        def known() -> bool:
            answer = self.api.get("/v2/nodes")
            return answer.status == 200 and any(
                pod["uid"] == uid for node in answer.json() for pod in node["pods"]
            )

        wait_until(known, f"the API knowing pod {uid}")

    def ready(self, what: str, **body: object) -> dict[str, Any]:
        """All of an action, which has come to its good end."""
        done = self.api.wait_state(accepted(self.api, what, body), "ready", "error")
        assert done["status"] == "ready", done["details"]["error"]
        return done

    def text(self, path: str) -> str:
        """What is answered to a GET, in plain words."""
        answer = self.api.get(path)
        assert answer.status == 200, answer.text
        return answer.text


@contextmanager
def cluster(
    directory: Path, broker: NatsServer, runc_root: Path, env: Mapping[str, str] | None = None
) -> Iterator[Cluster]:
    """A daemon that looks for pods below ``runc_root``, and an API; both are ready."""
    with (
        node_on(directory, broker, runc_roots=[runc_root], env=env) as node,
        api_in(directory, broker.url) as api,
    ):
        api.wait_ready()
        yield Cluster(api, node)


def test_a_pod_of_kubernetes_is_checkpointed(
    tmp_path: Path, containerd: ContainerdServer, broker: NatsServer
) -> None:
    pod = containerd.run_pod("web-1", containers=TWO)
    with cluster(tmp_path, broker, containerd.runc_root) as here:
        here.wait_pod(pod.uid)
        done = here.ready("checkpoint", pod_name=pod.name, namespace=pod.namespace)
        action_id, path = done["action_id"], done["details"]["path"]
        assert done["containers"] == ["app", "side"]
        assert done["details"]["pod"] == {
            "uid": pod.uid, "namespace": pod.namespace, "name": pod.name,
        }  # fmt: skip
        assert 0 < done["details"]["frozen_seconds"] < done["total_duration"] / 1e9
        assert [step["state"] for step in done["timeline"]] == [
            "initialized", "processing", "checkpoint_created", "ready",
        ]  # fmt: skip
        verified = only_document(run_cli("verify", path, "-o", "json").stdout)
        assert verified["chunks"] == done["outcome"]["chunks"]
        assert here.text(f"/v2/actions/from_pod/{pod.uid}") == action_id
        # By its own name where a container has one, else by where it is.
        for name in ("nightly", f"{pod.namespace}/{pod.name}/side"):
            assert here.text(f"/v2/checkpoint/path?name={name}") == path
        assert here.api.get(f"/v2/checkpoint/path?name={pod.name}").status == 400
        assert_pod_unharmed(pod)

        again = here.ready("checkpoint", pod_id=pod.uid)
        assert again["details"]["path"] != path
        assert here.text("/v2/checkpoint/path?name=nightly") == again["details"]["path"]
        assert here.text(f"/v2/actions/from_pod/{pod.uid}") == again["action_id"]
        assert_pod_unharmed(pod)
        here.node.assert_idle()


def kill_all(pod: Pod) -> None:
    """As the kernel does when memory runs out."""
    for container in pod.containers.values():
        os.kill(load(RuncTarget(container, pod.server.runc_root)).pid, signal.SIGKILL)


def test_a_pod_that_dies_in_the_dump_says_why(
    tmp_path: Path, containerd: ContainerdServer, broker: NatsServer
) -> None:
    pod = containerd.run_pod("dying", containers=TWO)
    criu = hooked_criu(tmp_path / "criu", find_tools().criu, "pre-dump")
    env = {"CHECKPOINT_AGENT_CRIU": str(criu.program)}
    with cluster(tmp_path, broker, containerd.runc_root, env) as here:
        here.wait_pod(pod.uid)
        action_id = accepted(here.api, "checkpoint", {"pod_id": pod.uid})
        wait_until(criu.reached, "the dump")
        os.kill(criu.pid(), signal.SIGKILL)
        kill_all(pod)
        criu.release()
        done = here.api.wait_state(action_id, "ready", "error")
        error = done["details"]["error"]
        assert error["code"] in ("dump_failed", "target_lost"), done
        assert error["message"]
        assert error["state"]
        status = here.api.get(f"/v2/checkpoint/status/{action_id}").json()
        assert status["status"] == "error"
        assert error["message"] in status["details"]
        assert (done["details"]["path"], done["outcome"]) == (None, None)
        assert here.api.get("/v2/checkpoint/path?name=nightly").status == 400
        here.node.assert_idle()
        assert here.node.stored() == []


def forget_life(container: Container) -> None:
    """Take back what it has written since it was checkpointed."""
    for slot in (Counter.TICKS, Counter.RESUMES, Counter.RESUMED_FROM):
        container.report("counter").write(slot, 0)


def test_a_restored_pod_counts_on(runc: RuncRoot, tmp_path: Path, broker: NatsServer) -> None:
    containers = [run_container(runc, "counting", name) for name in ("app", "side")]
    with cluster(tmp_path, broker, runc.path) as here:
        here.wait_pod(uid_of("counting"))
        ticks = [each.report("counter").read(Counter.TICKS) for each in containers]
        taken = here.ready("checkpoint", pod_id=uid_of("counting"))
        for container in containers:
            container.delete()
            forget_life(container)
        back = here.ready("restore", action_id=taken["action_id"], reason="manual")
        assert back["details"]["restored_from"] == taken["action_id"]
        assert [step["state"] for step in back["timeline"]] == [
            "initialized", "processing", "ready",
        ]  # fmt: skip
        members = {member["name"]: member for member in back["outcome"]["members"]}
        assert sorted(members) == ["app", "side"]
        for container, before in zip(containers, ticks, strict=True):
            report = container.report("counter")
            report.wait_beyond(Counter.TICKS, before + 10)
            assert report.read(Counter.RESUMES) == 1
            assert report.read(Counter.RESUMED_FROM) >= before
            assert container.status() == "running"
        assert {each.pid() for each in containers} == {each["pid"] for each in members.values()}
        # What can be restored once more.
        latest = here.text(f"/v2/actions/from_pod/{uid_of('counting')}")
        assert latest == taken["action_id"]
        here.node.assert_idle()
