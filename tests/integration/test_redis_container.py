"""A redis-server under load, checkpointed and restored: what it has acknowledged is there."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from agent.errors import DumpFailed
from agent.manifest import Options
from bench.reports import wait_until
from tests.integration.aftermath import nothing_left
from tests.integration.lab import Lab
from tests.servers.redis import Client, Writer, key, start_redis, value

pytestmark = [
    pytest.mark.root,
    pytest.mark.criu,
    pytest.mark.skipif(shutil.which("redis-server") is None, reason="needs redis-server"),
]

TCP = Options(tcp_established=True)


def assert_holds(network: Path, *, at_least: int, at_most: int) -> None:
    """Redis has the first keys, as many as are between these two, all of them as written."""
    with Client(network) as client:
        size = int(client.command("DBSIZE") or 0)
        assert at_least <= size <= at_most
        for number in range(size):
            assert client.command("GET", key(number)) == value(number).encode()


async def test_a_connection_lives_through_a_checkpoint(lab: Lab) -> None:
    network = lab.runc.network()
    container = start_redis(lab.runc, network)
    with Writer(network) as writer:
        writer.wait_beyond(100)
        for _ in range(3):
            before = writer.acknowledged
            assert (await lab.checkpoint(container, options=TCP)).streamed
            writer.wait_beyond(max(before, writer.acknowledged) + 100)
        writer.stop()
        assert_holds(network, at_least=writer.acknowledged, at_most=writer.acknowledged + 1)


async def test_what_was_acknowledged_before_a_checkpoint_is_in_it(lab: Lab) -> None:
    network = lab.runc.network()
    container = start_redis(lab.runc, network)
    with Writer(network) as writer:
        writer.wait_beyond(500)
        before = writer.acknowledged
        done = await lab.checkpoint(container, options=TCP)
        after = writer.acknowledged
        writer.wait_beyond(after + 500)
        writer.stop()
    container.delete()

    restored = await lab.restore(done.checkpoint_id)

    assert restored.streamed
    # One more may have been on its way when the answer to the last one was counted.
    assert_holds(network, at_least=before, at_most=after + 1)


async def test_a_connection_lives_through_a_stop_and_a_restore(lab: Lab) -> None:
    network = lab.runc.network()
    container = start_redis(lab.runc, network)
    with Writer(network) as writer:
        writer.wait_beyond(100)
        done = await lab.checkpoint(container, stop=True, options=TCP)
        wait_until(lambda: container.status() == "absent", "the container ending")

        await lab.restore(done.checkpoint_id)

        writer.wait_beyond(writer.acknowledged + 100)
        writer.stop()
        assert_holds(network, at_least=writer.acknowledged, at_most=writer.acknowledged + 1)


async def test_without_the_option_it_is_refused_and_works_on(lab: Lab) -> None:
    network = lab.runc.network()
    container = start_redis(lab.runc, network)
    with Writer(network) as writer:
        writer.wait_beyond(10)
        with nothing_left(lab), pytest.raises(DumpFailed, match="--tcp-established"):
            await lab.checkpoint(container, stop=True)
        writer.wait_beyond(writer.acknowledged + 100)
    assert container.status() == "running"
