"""Two hundred actions on twenty containers, four at a time."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.reports import Counter, wait_until
from bench.runc import RuncRoot
from tests.daemons import Tables
from tests.integration.aftermath import assert_unharmed
from tests.nodes import TERMINAL, node_on
from tests.runc_pods import named, run_container
from tests.servers.nats import NatsServer

pytestmark = [pytest.mark.root, pytest.mark.criu, pytest.mark.slow]

CONTAINERS, ACTIONS, AT_ONCE = 20, 200, 4


@pytest.mark.timeout(240)
def test_everybody_is_answered_and_everybody_counts_on(
    runc: RuncRoot, broker: NatsServer, tmp_path: Path
) -> None:
    containers = [run_container(runc, f"pod-{number}") for number in range(CONTAINERS)]
    ticks = [one.report("counter").read(Counter.TICKS) for one in containers]
    tables: Tables = {"checkpoint": {"concurrency": AT_ONCE, "streams": 1}}
    with node_on(tmp_path, broker, runc_roots=[runc.path], tables=tables) as node:
        ids = [f"a-{number}" for number in range(ACTIONS)]
        for number, action_id in enumerate(ids):
            node.ask(action_id, checkpoint=named(f"pod-{number % CONTAINERS}"))

        at_once: set[int] = set()

        def all_done() -> bool:
            operations = node.daemon.state_dir / "operations"
            at_once.add(len(list(operations.iterdir())) if operations.exists() else 0)
            return len(node.daemon.lines("action done")) == ACTIONS

        wait_until(all_done, "all actions ending", timeout=200)
        # Looked at from outside: as many as may be are seldom seen together on a busy machine.
        assert 1 < max(at_once) <= AT_ONCE
        paths = [node.ready(action_id)["path"] for action_id in ids]
        assert len(set(paths)) == ACTIONS
        for action_id in ids:
            assert [one for one in node.states(action_id) if one in TERMINAL] == ["ready"]
        node.wait_acknowledged()
        node.assert_idle()
        assert len([path for path in node.stored() if path.name == "manifest.json"]) == ACTIONS
    for container, before in zip(containers, ticks, strict=True):
        assert container.report("counter").read(Counter.TICKS) > before
        assert_unharmed(container)
