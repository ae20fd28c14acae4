"""The daemon is killed at every moment of a pod's checkpoint: the pod runs, all is answered."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.config import find_tools
from bench.reports import PATIENCE, wait_until
from tests.cli_process import only_document, run_cli, start_cli
from tests.fakes.hooked_criu import HookedCriu, hooked_criu
from tests.fakes.slow_store import Gate
from tests.integration.trees import processes
from tests.nodes import Node, node_on
from tests.pod_checks import assert_pod_unharmed, named, stood_still
from tests.servers.containerd import ContainerdServer
from tests.servers.cri_pods import ContainerSpec, Pod
from tests.servers.moto import Fault, MotoServer
from tests.servers.nats import NatsServer
from tests.servers.s3 import ask

pytestmark = [pytest.mark.root, pytest.mark.criu]

# Both frozen and CRIU not begun; in the dump; all images written, the agent still draining pipes.
HOOKS = ["pre-dump", "network-lock", "post-dump"]


@pytest.fixture
def pod(containerd: ContainerdServer) -> Pod:
    return containerd.run_pod("web-1", containers=[ContainerSpec("app"), ContainerSpec("side")])


@contextmanager
def holding(
    directory: Path, pod: Pod, broker: NatsServer, hook: str
) -> Iterator[tuple[Node, HookedCriu]]:
    """A node in the middle of action a-1, its pod frozen and its CRIU in a hook."""
    criu = hooked_criu(directory / "criu", find_tools().criu, hook)
    env = {"CHECKPOINT_AGENT_CRIU": str(criu.program)}
    with node_on(directory, broker, runc_roots=[pod.server.runc_root], env=env) as node:
        try:
            node.ask("a-1", checkpoint=named(pod))
            wait_until(criu.reached, "the dump")
            wait_until(stood_still(pod, 0.1), "the pod standing still")
            yield node, criu
        finally:
            criu.release()


def assert_answered(node: Node) -> None:
    """The action that died ended with one error; nothing is left of it; the node works."""
    failure = node.failure("a-1")
    assert failure["code"] == "agent_restarted"
    node.assert_idle()
    assert node.stored() == []
    node.wait_acknowledged()


@pytest.mark.parametrize("hook", HOOKS)
def test_in_the_dump(tmp_path: Path, pod: Pod, broker: NatsServer, hook: str) -> None:
    with holding(tmp_path, pod, broker, hook) as (node, criu):
        node.daemon.kill()
        criu.release()
        node.start()
        assert_pod_unharmed(pod)
        assert_answered(node)
        assert_pod_unharmed(pod)
        node.ask("a-2", checkpoint=named(pod))
        node.ready("a-2")


def test_the_next_one_starts_while_the_old_dump_is_not_over(
    tmp_path: Path, pod: Pod, broker: NatsServer
) -> None:
    with holding(tmp_path, pod, broker, "network-lock") as (node, criu):
        node.daemon.kill()
        node.start()
        criu.release()
        assert_pod_unharmed(pod)
        assert_answered(node)


@pytest.mark.parametrize("hook", ["pre-dump", "post-dump"])
def test_thaw_all_is_enough(tmp_path: Path, pod: Pod, broker: NatsServer, hook: str) -> None:
    """As after the machine ran out of memory: nobody is left who could put anything back."""
    with holding(tmp_path, pod, broker, hook) as (node, criu):
        node.daemon.kill()
        for process in processes(str(node.daemon.state_dir)):
            process.kill()
        criu.release()
        done = run_cli("thaw", "--all", "--state-dir", str(node.daemon.state_dir))
        assert done.returncode == 0, done.stderr
        assert_pod_unharmed(pod)
        node.assert_idle()
        assert node.stored() == []
        node.start()
        assert_answered(node)
        assert_pod_unharmed(pod)


def bucket_of(directory: Path) -> str:
    """A test's own bucket."""
    return directory.name.replace("_", "-").lower()[:60].rstrip("-")


def one_id(path: str) -> str:
    """The id of the checkpoint at a path."""
    return path.partition("?")[0].rpartition("/")[2]


def test_thaw_all_waits_for_a_dump_that_is_not_over(
    tmp_path: Path, pod: Pod, broker: NatsServer
) -> None:
    """As ExecStopPost does it: CRIU outlives the daemon, and freezes again what it found frozen."""
    with holding(tmp_path, pod, broker, "post-dump") as (node, criu):
        node.daemon.kill()
        state_dir = str(node.daemon.state_dir)
        with start_cli("thaw", "--all", "--state-dir", state_dir, "-o", "json") as thaw:
            # It waits: for longer than a whole run of it takes.
            with pytest.raises(subprocess.TimeoutExpired):
                thaw.wait(2)
            criu.release()
            said, _ = thaw.communicate(timeout=PATIENCE)
        [recovered] = only_document(said)["recovered"]
        assert recovered["problem"] is None
        assert_pod_unharmed(pod)
        node.assert_idle()
        assert node.stored() == []


@contextmanager
def storing(
    directory: Path, pod: Pod, broker: NatsServer, moto: MotoServer, fault: Fault
) -> Iterator[Node]:
    """A node in the middle of action a-1, at a request to its object store."""
    moto.faults.append(fault)
    bucket = bucket_of(directory)
    moto.create_bucket(bucket)
    env = {"AWS_ACCESS_KEY_ID": moto.key, "AWS_SECRET_ACCESS_KEY": moto.secret}
    with node_on(
        directory,
        broker,
        runc_roots=[pod.server.runc_root],
        tables={"storage": {"store": moto.url(bucket, "/checkpoints")}},
        env=env,
    ) as node:
        node.ask("a-1", checkpoint=named(pod))
        yield node


def test_captured_and_not_durable(
    tmp_path: Path, pod: Pod, broker: NatsServer, moto: MotoServer
) -> None:
    gate = Gate()
    fault = Fault("PUT", "", "503 Slow Down", times=4, path="/stream-", gate=gate)
    with storing(tmp_path, pod, broker, moto, fault) as node:
        node.wait_state("a-1", "checkpoint_created")
        wait_until(gate.reached.is_set, "the store being written to")
        node.daemon.kill()
        gate.open()
        moto.faults.clear()
        assert_pod_unharmed(pod)
        node.start()
        assert node.failure("a-1")["code"] == "agent_restarted"
        node.assert_idle()
        node.ask("a-2", checkpoint=named(pod))
        path = node.ready("a-2")["path"]
        store = str(node.daemon.tables["storage"]["store"])
        listed = run_cli("list", "--store", store, "-o", "json", env=node.daemon.env)
        assert [one["path"] for one in only_document(listed.stdout)["checkpoints"]] == [path]
        # What the one that died had written has no manifest, and is gone.
        uploaded = ask("GET", f"{moto.endpoint}/{bucket_of(tmp_path)}?list-type=2")
        assert set(re.findall("<Key>checkpoints/([^/]*)/", uploaded)) == {one_id(path)}
        assert_pod_unharmed(pod)


def test_committed_and_not_reported(
    tmp_path: Path, pod: Pod, broker: NatsServer, moto: MotoServer
) -> None:
    gate = Gate()
    fault = Fault("PUT", "", "503 Slow Down", times=1, done=True, path="/manifest", gate=gate)
    with storing(tmp_path, pod, broker, moto, fault) as node:
        wait_until(gate.reached.is_set, "the manifest being written")
        node.daemon.kill()
        gate.open()
        node.start()
        # What is there is not done again, nor called an error.
        outcome = node.ready("a-1")
        assert run_cli("verify", outcome["path"], env=node.daemon.env).returncode == 0
        assert sorted(outcome["containers"]) == ["app", "side"]
        assert node.states("a-1").count("checkpoint_created") == 1
        node.assert_idle()
        node.wait_acknowledged()
        assert_pod_unharmed(pod)


def test_ready_and_not_published(tmp_path: Path, pod: Pod, broker: NatsServer) -> None:
    with holding(tmp_path, pod, broker, "post-dump") as (node, criu):
        broker.kill()
        criu.release()
        wait_until(lambda: bool(node.daemon.lines("action done")), "the action's end")
        node.daemon.kill()
        broker.start()
        node.start()
        outcome = node.ready("a-1")
        assert node.states("a-1") == ["initialized", "processing", "checkpoint_created", "ready"]
        assert run_cli("verify", outcome["path"]).returncode == 0
        node.wait_acknowledged()
        node.assert_idle()
        assert_pod_unharmed(pod)


def test_waiting_for_its_turn(tmp_path: Path, pod: Pod, broker: NatsServer) -> None:
    with holding(tmp_path, pod, broker, "pre-dump") as (node, criu):
        # The same pod: it waits for the first one.
        node.ask("a-2", checkpoint=named(pod))
        node.wait_state("a-2", "initialized")
        node.daemon.kill()
        criu.release()
        node.start()
        assert node.failure("a-1")["code"] == "agent_restarted"
        # Nothing had been done for it: it is done now.
        assert run_cli("verify", node.ready("a-2")["path"]).returncode == 0
        assert_pod_unharmed(pod)
        node.assert_idle()
        node.wait_acknowledged()
