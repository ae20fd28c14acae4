"""What is started in a container beside its own processes: people's shells, a kubelet's probes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from bench.bundle import COUNTER
from bench.reports import Counter, wait_until
from bench.runc import Container, RuncFailed
from tests.integration.lab import Lab
from tests.waiting import meanwhile

pytestmark = [pytest.mark.root, pytest.mark.criu]


async def test_a_program_is_left_alone_and_is_not_restored(lab: Lab) -> None:
    container = lab.runc.start(lab.runc.build(COUNTER))
    report, beside = container.report("counter"), container.report("beside")
    lab.runc.run("exec", "-d", container.id, "/bin/counter", "/state/beside")
    for each in (report, beside):
        each.wait_beyond(Counter.TICKS, 20)

    await lab.checkpoint(container)
    beside.wait_beyond(Counter.TICKS, beside.read(Counter.TICKS) + 20)

    done = await lab.checkpoint(container, stop=True)
    wait_until(lambda: container.status() == "absent", "the container ending")
    for each in (report, beside):
        each.write(Counter.TICKS, 0)
    await lab.restore(done.checkpoint_id)
    report.wait_beyond(Counter.TICKS, 20)
    assert beside.read(Counter.TICKS) == 0


@contextmanager
def probed(lab: Lab, container: Container) -> Iterator[list[str]]:
    """Somebody looks into it all the time; what that has come to."""
    found: list[str] = []

    def probe(over: threading.Event) -> None:
        while not over.is_set():
            try:
                found.append(lab.runc.run("exec", container.id, "/bin/ls", "/state"))
            except RuncFailed as error:
                # For some milliseconds it is: a kubelet tries again before it draws conclusions.
                if "paused" not in str(error):
                    found.append(str(error))

    with meanwhile(probe):
        yield found


async def test_probes_fail_no_checkpoint(lab: Lab) -> None:
    container = lab.runc.start(lab.runc.build(COUNTER))
    container.report("counter").wait_beyond(Counter.TICKS, 20)
    with probed(lab, container) as found:
        for _ in range(3):
            await lab.checkpoint(container)
        wait_until(lambda: len(found) >= 5, "probes")
    assert set(found) == {"counter\n"}
