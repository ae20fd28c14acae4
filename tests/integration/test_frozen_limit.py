"""A store that hangs keeps nobody frozen for longer than allowed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from agent.checkpoint import CheckpointRequest, MemberRequest, checkpoint
from agent.compress import parse_compression
from agent.errors import FrozenTooLong, StoreFailed
from agent.operation import attempt
from agent.report import CheckpointResult
from bench.bundle import COUNTER, memory
from bench.reports import Counter
from bench.runc import Container
from tests.cli_process import only_document, run_cli
from tests.fakes.slow_store import Gate, Step, gated
from tests.fakes.stores import failing
from tests.integration.aftermath import assert_unharmed, nothing_left, stood_still
from tests.integration.executors import checkpoint_of, executing
from tests.integration.lab import Lab, target_of
from tests.integration.moments import Ring, ring
from tests.integration.test_fallback import with_terminal  # noqa: F401 - a fixture
from tests.integration.test_moment_faults import standing_still
from tests.waiting import eventually_async

pytestmark = [pytest.mark.root, pytest.mark.criu]

# Seconds: long enough for a slow machine to come to where the store hangs.
LIMIT = 3.0


async def limited(
    lab: Lab,
    container: Container,
    gate: Gate,
    step: Step,
    *,
    stop: bool,
    limit: float = LIMIT,
) -> None:
    """Checkpoint it into a store that stops at ``step`` until the gate is opened."""
    request = CheckpointRequest(
        members=(MemberRequest(target_of(container)),),
        store=gated(lab.store, step, gate),
        compression=parse_compression("none"),
        stop=stop,
        frozen_limit=limit,
    )
    await checkpoint(request, tools=lab.tools, state_dir=lab.state_dir)


def still_hangs(gate: Gate) -> bool:
    """Whether the store does: a gate that nobody opens does not stay shut for ever."""
    return gate.waiting > 0


@asynccontextmanager
async def given_up(gate: Gate, work: asyncio.Task[None]) -> AsyncIterator[None]:
    """The block is while the store still hangs; afterwards it goes on, and the error is told."""
    try:
        await eventually_async(gate.reached.is_set, "the store hanging")
        yield
        assert still_hangs(gate)
        assert not work.done()
    finally:
        gate.open()
    with pytest.raises(FrozenTooLong, match=f"frozen for {LIMIT:g} s") as caught:
        await work
    assert "it runs as before" in caught.value.state


def counts_again(container: Container) -> Callable[[], bool]:
    """A condition: it has counted on by some."""
    report = container.report("counter")
    ticks = report.read(Counter.TICKS)
    return lambda: report.read(Counter.TICKS) >= ticks + 10


async def test_more_than_the_memory_that_waits_for_the_store(lab: Lab) -> None:
    container, gate = lab.runc.start(lab.runc.build(COUNTER, memory(64))), Gate()
    with nothing_left(lab):
        work = asyncio.create_task(limited(lab, container, gate, "write", stop=False))
        async with given_up(gate, work):
            await eventually_async(stood_still(container, 0.5), "the container standing still")
            await eventually_async(counts_again(container), "the container counting on")
        assert_unharmed(container)
    await lab.checkpoint(container)


@pytest.mark.parametrize("step", ["write", "commit", "manifest"])
async def test_one_that_is_stopped_for_a_commit_that_does_not_come(lab: Lab, step: Step) -> None:
    container, gate = lab.runc.start(lab.runc.build(COUNTER, memory(8))), Gate()
    with nothing_left(lab):
        work = asyncio.create_task(limited(lab, container, gate, step, stop=True))
        async with given_up(gate, work):
            await eventually_async(stood_still(container, 0.5), "the container standing still")
            await eventually_async(counts_again(container), "the container counting on")
        assert_unharmed(container)
    await lab.checkpoint(container)


async def test_given_up_while_it_is_stopped_for_a_commit_that_does_not_come(lab: Lab) -> None:
    """Not its limit, but somebody who does not want to wait for it."""
    container, gate = lab.runc.start(lab.runc.build(COUNTER, memory(8))), Gate()
    with nothing_left(lab):
        work = asyncio.create_task(limited(lab, container, gate, "manifest", stop=True, limit=3600))
        await eventually_async(gate.reached.is_set, "the store hanging")
        work.cancel()
        try:
            await eventually_async(counts_again(container), "the container counting on")
            assert still_hangs(gate)
            assert not work.done()
        finally:
            gate.open()
        with pytest.raises(asyncio.CancelledError):
            await work
        assert_unharmed(container)


async def test_a_nodes_limit_is_that_of_its_actions(lab: Lab) -> None:
    container = lab.runc.start(lab.runc.build(COUNTER))
    async with executing(lab, frozen_limit_seconds=0.001) as executor:
        await executor.submit(checkpoint_of(container))
        action = await executor.wait("a")
    assert action.event.failure is not None
    assert action.event.failure.code == "frozen_too_long"
    assert_unharmed(container)


def test_the_command_lines_limit(lab: Lab) -> None:
    container = lab.runc.start(lab.runc.build(COUNTER))
    done = run_cli(
        *("checkpoint", container.id, "--runc-root", str(lab.runc.path)),
        *("--store", lab.store.url, "--state-dir", str(lab.state_dir)),
        *("--frozen-limit", "0.001", "-o", "json"),
    )
    assert done.returncode == 7
    assert only_document(done.stdout)["error"]["code"] == "frozen_too_long"
    assert_unharmed(container)


async def limited_ring(made: Ring, gate: Gate, step: Step, *, stop: bool) -> CheckpointResult:
    return await made.checkpoint(
        store=gated(made.lab.store, step, gate),
        compression=parse_compression("none"),
        stop=stop,
        frozen_limit=LIMIT,
    )


@pytest.mark.parametrize(
    ("step", "stop", "mib"),
    [("write", False, 60), ("commit", True, 2), ("manifest", True, 2)],
)
async def test_a_pod(lab: Lab, step: Step, stop: bool, mib: int) -> None:
    made, gate = ring(lab, mib, mib), Gate()
    with nothing_left(lab):
        work = asyncio.create_task(limited_ring(made, gate, step, stop=stop))
        try:
            await eventually_async(standing_still(made), "all of them standing still")
            numbers = made.numbers()
            await eventually_async(
                lambda: made.numbers()[0] > numbers[0] + 100, "the ring going on"
            )
            assert still_hangs(gate)
            assert not work.done()
        finally:
            gate.open()
        with pytest.raises(FrozenTooLong, match="pod default/ring"):
            await work
        made.assert_goes_on()
    await made.checkpoint()


async def test_a_dump_through_files_that_is_stopped_for_a_commit_that_does_not_come(
    lab: Lab,
    with_terminal: Container,  # noqa: F811 - the fixture
) -> None:
    gate = Gate()
    with nothing_left(lab):
        work = asyncio.create_task(limited(lab, with_terminal, gate, "commit", stop=True))
        async with given_up(gate, work):
            await eventually_async(stood_still(with_terminal, 0.5), "the container standing still")
            await eventually_async(counts_again(with_terminal), "the container counting on")
        assert_unharmed(with_terminal)


async def test_a_criu_that_writes_to_files_is_not_ended_for_a_store_that_fails(
    lab: Lab,
    with_terminal: Container,  # noqa: F811 - the fixture
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Only a signal would end it, and it may have hold of the tasks."""
    monkeypatch.setattr(attempt, "ROLLBACK_TIMEOUT", 0.1)
    criu, hold = lab.directory / "slow-criu", lab.directory / "hold"
    wait = f"while [ -e {hold} ]; do sleep 0.01; done"
    criu.write_text(f'#!/bin/sh\n[ "$1" != swrk ] || {wait}\nexec {lab.tools.criu} "$@"\n')
    criu.chmod(0o755)
    hold.touch()
    slow = replace(lab, tools=replace(lab.tools, criu=criu))
    broken = slow.with_store(failing(lab.store, "create", 0))
    with nothing_left(lab):
        work = asyncio.create_task(broken.checkpoint(with_terminal))
        await asyncio.sleep(2)
        assert not work.done()
        hold.unlink()
        with pytest.raises(StoreFailed):
            await work
        assert_unharmed(with_terminal)
