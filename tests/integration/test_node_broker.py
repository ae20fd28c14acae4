"""What a broker does to a node: it delivers again, repeats itself, and dies in mid-action."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench.reports import Counter, wait_until
from tests.cli_process import run_cli
from tests.fakes.hooked_criu import HookedCriu
from tests.integration.aftermath import assert_unharmed, stood_still
from tests.integration.lab import Lab
from tests.nodes import TERMINAL, Node, node_on
from tests.runc_pods import named, run_container
from tests.servers.nats import NatsServer
from tests.stalls import stalls

pytestmark = [pytest.mark.root, pytest.mark.criu]


@pytest.fixture
def node(lab: Lab, broker: NatsServer) -> Iterator[Node]:
    with node_on(lab.directory, broker, runc_roots=[lab.runc.path]) as made:
        yield made


@contextmanager
def holding(lab: Lab, broker: NatsServer, hook: str) -> Iterator[tuple[Node, HookedCriu]]:
    """A node whose CRIU waits in a hook."""
    criu, _ = lab.hook(hook)
    env = {"CHECKPOINT_AGENT_CRIU": str(criu.program)}
    with node_on(lab.directory, broker, runc_roots=[lab.runc.path], env=env) as node:
        yield node, criu


def manifests(node: Node) -> list[Path]:
    """Of every checkpoint that exists."""
    return [path for path in node.stored() if path.name == "manifest.json"]


def endings(node: Node, action_id: str) -> list[str]:
    """The terminal states that were published of an action."""
    return [state for state in node.states(action_id) if state in TERMINAL]


def test_the_same_action_again_is_answered_and_not_done_again(lab: Lab, node: Node) -> None:
    container = run_container(lab.runc, "web")
    node.ask("a-1", checkpoint=named("web"))
    node.ready("a-1")
    node.ask("a-1", checkpoint=named("web"))
    wait_until(lambda: len(endings(node, "a-1")) == 2, "the answer to the second one")
    first, again = [one for one in node.events("a-1") if one["state"] in TERMINAL]
    assert first == again
    assert len(manifests(node)) == 1
    node.wait_acknowledged()
    assert_unharmed(container)


def test_the_same_action_while_it_runs_is_one_action(lab: Lab, broker: NatsServer) -> None:
    container = run_container(lab.runc, "web")
    with holding(lab, broker, "post-dump") as (node, criu):
        node.ask("a-1", checkpoint=named("web"))
        wait_until(criu.reached, "the dump")
        node.ask("a-1", checkpoint=named("web"))
        criu.release()
        node.ready("a-1")
        node.wait_acknowledged()
        assert endings(node, "a-1") == ["ready"]
        assert len(manifests(node)) == 1
        assert criu.hooks().count("post-dump") == 1
        assert_unharmed(container)


def test_another_action_under_the_same_id_harms_nobody(lab: Lab, broker: NatsServer) -> None:
    container, other = run_container(lab.runc, "web"), run_container(lab.runc, "other")
    with holding(lab, broker, "post-dump") as (node, criu):
        node.ask("a-1", checkpoint=named("web"))
        wait_until(criu.reached, "the dump")
        node.ask("a-1", checkpoint=named("other"))
        said = "not done: another action has this id"
        wait_until(lambda: bool(node.daemon.lines(said)), "the refusal")
        criu.release()
        outcome = node.ready("a-1")
        assert node.events("a-1")[-1]["pod"]["name"] == "web"
        assert run_cli("verify", outcome["path"]).returncode == 0
        node.wait_acknowledged()
        assert len(manifests(node)) == 1
    for each in (container, other):
        assert_unharmed(each)


def test_a_broker_killed_in_mid_action_delays_no_thaw(lab: Lab, broker: NatsServer) -> None:
    container = run_container(lab.runc, "web")
    report = container.report("counter")
    report.ask(Counter.RESET, Counter.RESET_DONE)
    with holding(lab, broker, "post-dump") as (node, criu):
        with stalls() as machine:
            node.ask("a-1", checkpoint=named("web"))
            wait_until(criu.reached, "the dump")
            began = time.monotonic()
            wait_until(stood_still(container, 0.5), "the container standing still")
            held = time.monotonic() - began
            broker.kill()
            criu.release()
            # It counts, and its checkpoint is there, while nobody can be told.
            assert_unharmed(container)
            wait_until(lambda: bool(node.daemon.lines("action done")), "the action's end")
            broker.start()
            outcome = node.ready("a-1")
            # Also the broker's return has kept it from nothing.
            gap = report.read(Counter.GAP_NS) / 1e9
        assert held <= outcome["frozenSeconds"]
        assert held <= gap
        # What the scheduler adds to a pause that long is far below half of it, or happens to all.
        assert gap - machine.longest <= 1.5 * outcome["frozenSeconds"]
        assert node.states("a-1") == ["initialized", "processing", "checkpoint_created", "ready"]
        assert run_cli("verify", outcome["path"]).returncode == 0
        assert len(manifests(node)) == 1
        node.wait_acknowledged()
        node.ask("a-2", checkpoint=named("web"))
        node.ready("a-2")
