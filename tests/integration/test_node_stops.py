"""The daemon is told to stop while it works on a pod, and comes back."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from agent.config import find_tools
from bench.reports import wait_until
from tests.cli_process import run_cli
from tests.daemons import Tables
from tests.fakes.hooked_criu import hooked_criu
from tests.nodes import node_on
from tests.pod_checks import assert_pod_unharmed, named, stood_still
from tests.servers.containerd import ContainerdServer
from tests.servers.cri_pods import ContainerSpec
from tests.servers.nats import NatsServer

pytestmark = [pytest.mark.root, pytest.mark.criu]

TWO = (ContainerSpec("app"), ContainerSpec("side"))


def test_what_takes_too_long_is_rolled_back_and_what_waited_is_done_later(
    tmp_path: Path, containerd: ContainerdServer, broker: NatsServer
) -> None:
    pod, other = (containerd.run_pod(name, containers=TWO) for name in ("web", "other"))
    criu = hooked_criu(tmp_path / "criu", find_tools().criu, "post-dump")
    tables: Tables = {"": {"stop_seconds": 0.2}, "checkpoint": {"concurrency": 1}}
    env = {"CHECKPOINT_AGENT_CRIU": str(criu.program)}
    with node_on(
        tmp_path, broker, runc_roots=[containerd.runc_root], tables=tables, env=env
    ) as node:
        node.ask("a-1", checkpoint=named(pod))
        wait_until(criu.reached, "the dump")
        wait_until(stood_still(pod, 0.1), "the pod standing still")
        node.ask("a-2", checkpoint=named(other))
        node.wait_state("a-2", "initialized")
        node.daemon.signal(signal.SIGTERM)
        wait_until(lambda: bool(node.daemon.lines("giving up")), "its patience ending")
        criu.release()
        assert node.daemon.wait() == 0
        assert_pod_unharmed(pod)
        node.assert_idle()
        assert node.stored() == []
        # Told before the end, because there was a broker.
        assert node.states("a-1")[-1] == "error"
        assert node.failure("a-1")["code"] == "agent_stopping"
        assert node.states("a-2") == ["initialized"]

        node.start()
        outcome = node.ready("a-2")
        assert run_cli("verify", outcome["path"]).returncode == 0
        # It was answered; the broker does not bring it again.
        node.wait_acknowledged()
        assert node.failure("a-1")["code"] == "agent_stopping"
        for each in (pod, other):
            assert_pod_unharmed(each)
