"""Everybody dies in a dump of what the agent does not freeze: its connections work afterwards."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.errors import DumpFailed
from agent.operation.recovery import recover
from bench.bundle import Bundle, service
from bench.reports import wait_until
from bench.runc import Container
from tests.integration.aftermath import is_frozen, nothing_left
from tests.integration.agents import kill_together, recovered
from tests.integration.connections import KEPT, held_dump
from tests.integration.lab import Lab
from tests.integration.trees import processes, started_tree
from tests.integration.wired import HERE, PORT, wired
from tests.networks import connect, echoed, filter_rules, in_network
from tests.ports import free_port

pytestmark = [pytest.mark.root, pytest.mark.criu]

NODES = Path("/proc/self/ns/net")


async def test_a_container_that_its_owner_has_paused(lab: Lab) -> None:
    at = wired(lab.runc)
    with connect(at.outside, HERE, PORT) as client, nothing_left(lab):
        assert echoed(client, b"before") == b"before"
        lab.runc.run("pause", at.container.id)
        wait_until(lambda: is_frozen(at.container), "the container pausing")
        with held_dump(lab, at.container, "post-dump") as (criu, _):
            kill_together(each.pid for each in processes(str(lab.state_dir)))
            criu.release()
            await recovered(lab)
        # CRIU has thawed it to look at it, and did not live to freeze it again.
        assert echoed(client, b"after") == b"after"
    assert filter_rules(at.inside) == []


@contextmanager
def beside(port: int) -> Iterator[None]:
    """Two clients of a server in the node's own network, over IPv4 and IPv6; all goes on, and no
    lock is left.
    """
    with connect(NODES, "127.0.0.1", port) as one, connect(NODES, "::1", port) as other:
        for client in (one, other):
            assert echoed(client, b"before") == b"before"
        try:
            yield
            assert locked(port) == []
        finally:
            unlock(port)
        for client in (one, other):
            assert echoed(client, b"after") == b"after"


def locked(port: int) -> list[str]:
    """Rules with CRIU's mark about the server's connections."""
    return [rule for rule in filter_rules(NODES) if "0xc114" in rule and f"port {port} " in rule]


def unlock(port: int) -> None:
    """Whatever a test that failed has left: the network is everybody's."""
    for rule in locked(port):
        program = "ip6tables" if "::1" in rule else "iptables"
        in_network(NODES, program, *rule.replace("-A", "-D", 1).split())


async def kill_everybody_in_a_dump(lab: Lab, target: Container | int, port: int) -> None:
    with held_dump(lab, target, "post-dump") as (criu, _):
        # Two for each connection.
        assert len(locked(port)) == 4
        kill_together(each.pid for each in processes(str(lab.state_dir)))
        criu.release()
        await recovered(lab)


async def test_a_process_tree(lab: Lab) -> None:
    port = free_port()
    with started_tree(lab.directory, service(port)) as tree, beside(port), nothing_left(lab):
        await kill_everybody_in_a_dump(lab, tree.pid, port)


async def test_a_process_tree_whose_locks_cannot_be_taken_back_at_once(
    lab: Lab, busy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    with started_tree(lab.directory, service(port)) as tree, beside(port), nothing_left(lab):
        with held_dump(lab, tree.pid, "post-dump") as (criu, _):
            kill_together(each.pid for each in processes(str(lab.state_dir)))
            criu.release()
        wait_until(lambda: not processes(str(lab.state_dir)), "everybody ending")
        with monkeypatch.context() as broken:
            broken.setenv("PATH", busy)
            for _ in range(2):
                [left] = await recover(tools=lambda: lab.tools, state_dir=lab.state_dir)
                assert "it is busy" in str(left.problem)
        # Those of IPv4: the other program works.
        assert len(locked(port)) == 2
        await recovered(lab)


async def test_a_process_tree_whose_criu_is_killed(lab: Lab) -> None:
    port = free_port()
    _, hooked = lab.hook("post-dump", "kill")
    with (
        started_tree(lab.directory, service(port)) as tree,
        beside(port),
        nothing_left(lab),
        pytest.raises(DumpFailed),
    ):
        await hooked.checkpoint(tree.pid, stop=True, options=KEPT)


async def test_a_container_in_the_nodes_network(lab: Lab) -> None:
    port = free_port()
    bundle = lab.runc.build(service(port))
    share_network(bundle)
    container = lab.runc.start(bundle)
    with beside(port), nothing_left(lab):
        await kill_everybody_in_a_dump(lab, container, port)


def share_network(bundle: Bundle) -> None:
    """Leave a container in the network of whoever starts it."""
    path = bundle.path / "config.json"
    config = json.loads(path.read_text())
    namespaces = config["linux"]["namespaces"]
    config["linux"]["namespaces"] = [one for one in namespaces if one["type"] != "network"]
    path.write_text(json.dumps(config))
