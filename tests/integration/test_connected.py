"""Containers with connections and with many tasks, streamed there and back, more than once."""

from __future__ import annotations

import pytest

from agent.errors import DumpFailed
from agent.manifest import Options
from bench.bundle import COUNTER, family, generations, memory
from bench.client import connected
from bench.reports import Family, Generations, Memory, Report, wait_until
from bench.runc import Container
from tests.integration.aftermath import nothing_left
from tests.integration.lab import Lab

pytestmark = [pytest.mark.root, pytest.mark.criu]

TCP = Options(tcp_established=True)


def assert_works(report: Report) -> None:
    """The token goes round, and both listeners take new connections."""
    report.wait_beyond(Family.LAPS, report.read(Family.LAPS) + 20)
    report.ask(Family.PROBE, Family.PROBED)
    assert report.read(Family.ERRORS) == 0


def at_work(lab: Lab) -> Container:
    """A family whose token has gone round."""
    container = lab.runc.start(lab.runc.build(family(), netns=lab.runc.network()))
    assert_works(container.report("family"))
    return container


async def stop_and_restore(lab: Lab, container: Container) -> None:
    """There and back under the same id."""
    done = await lab.checkpoint(container, stop=True, options=TCP)
    wait_until(lambda: container.status() == "absent", "the container ending")
    restored = await lab.restore(done.checkpoint_id)
    assert (done.streamed, restored.streamed) == (True, True)


async def test_a_family_comes_back_again_and_again(lab: Lab) -> None:
    container = at_work(lab)
    for _ in range(3):
        await lab.checkpoint(container, options=TCP)
        await stop_and_restore(lab, container)
        assert_works(container.report("family"))


async def test_a_client_outside_keeps_its_connection(lab: Lab) -> None:
    network = lab.runc.network()
    container = lab.runc.start(lab.runc.build(family(), netns=network))
    with connected(network, container.report("family").read(Family.LISTEN_PORT)) as client:
        assert client.echo(b"before\n") == b"before\n"
        await lab.checkpoint(container, options=TCP)
        assert client.echo(b"running\n") == b"running\n"
        await stop_and_restore(lab, container)
        assert client.echo(b"restored\n") == b"restored\n"


async def test_connections_have_to_be_allowed(lab: Lab) -> None:
    container = at_work(lab)
    with nothing_left(lab), pytest.raises(DumpFailed, match="--tcp-established"):
        await lab.checkpoint(container, stop=True)
    assert_works(container.report("family"))


async def test_several_large_processes_come_back(lab: Lab) -> None:
    # CRIU restores tasks side by side: their pages are served at the same time.
    workloads = (COUNTER, memory(48), generations(32))
    container = lab.runc.start(lab.runc.build(*workloads))
    done = await lab.checkpoint(container, stop=True)
    wait_until(lambda: container.status() == "absent", "the container ending")

    await lab.restore(done.checkpoint_id)

    holds, rewrites = container.report("memory"), container.report("generations")
    holds.ask(Memory.VERIFY, Memory.VERIFIED)
    assert holds.read(Memory.FAILURES) == 0
    rewrites.wait_beyond(Generations.GENERATION, rewrites.read(Generations.GENERATION) + 2)
    assert rewrites.read(Generations.ERRORS) == 0
