"""Everybody dies in a dump of what the agent does not freeze: its connections work afterwards."""

from __future__ import annotations

import pytest

from bench.reports import wait_until
from tests.integration.aftermath import is_frozen, nothing_left
from tests.integration.agents import kill_together, recovered
from tests.integration.connections import held_dump
from tests.integration.lab import Lab
from tests.integration.trees import processes
from tests.integration.wired import HERE, PORT, wired
from tests.networks import connect, echoed, filter_rules

pytestmark = [pytest.mark.root, pytest.mark.criu]


async def test_a_container_that_its_owner_has_paused(lab: Lab) -> None:
    at = wired(lab.runc)
    with connect(at.outside, HERE, PORT) as client, nothing_left(lab):
        assert echoed(client, b"before") == b"before"
        lab.runc.run("pause", at.container.id)
        wait_until(lambda: is_frozen(at.container), "the container pausing")
        with held_dump(lab, at, "post-dump") as (criu, _):
            kill_together(each.pid for each in processes(str(lab.state_dir)))
            criu.release()
            await recovered(lab)
        # CRIU has thawed it to look at it, and did not live to freeze it again.
        assert echoed(client, b"after") == b"after"
    assert filter_rules(at.inside) == []
