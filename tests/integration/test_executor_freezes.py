"""What callers keep frozen: stands still, and always runs again."""

from __future__ import annotations

import asyncio
import contextlib
import math
import subprocess
import sys
from collections.abc import Iterator

import pytest

from agent.actions import Freezes
from agent.errors import (
    FreezeNotFound,
    InvalidArgument,
    PodNotFound,
    TargetBusy,
    TargetFrozen,
    TargetNotFound,
)
from agent.operation.recovery import recover
from agent.targets import PodRef, RuncTarget
from bench.bundle import COUNTER
from bench.reports import wait_until
from bench.runc import Container
from tests.cli_process import environment
from tests.integration.aftermath import assert_unharmed, is_frozen
from tests.integration.lab import Lab, target_of
from tests.waiting import eventually_async

pytestmark = [pytest.mark.root, pytest.mark.criu]


def started(lab: Lab) -> Container:
    """A container that counts."""
    return lab.runc.start(lab.runc.build(COUNTER))


def freezes_of(lab: Lab, limit: float = 60) -> Freezes:
    return Freezes(state_dir=lab.state_dir, runc_roots=[lab.runc.path], limit_seconds=limit)


def runc_target(container: Container) -> RuncTarget:
    target = target_of(container)
    assert isinstance(target, RuncTarget)
    return target


async def test_stands_still_until_it_is_thawed(lab: Lab) -> None:
    container = started(lab)
    freezes = freezes_of(lab)
    freeze = await freezes.freeze(runc_target(container), 60)
    assert freeze.containers == (container.id,)
    assert is_frozen(container)
    thawed = await freezes.thaw(freeze.freeze_id)
    assert thawed.was_frozen
    assert thawed.frozen_seconds > 0
    assert_unharmed(container)
    # Once more is late, and says so.
    again = await freezes.thaw(freeze.freeze_id)
    assert (again.was_frozen, again.frozen_seconds) == (False, thawed.frozen_seconds)
    await eventually_async(lambda: not lab.operations(), "the journal forgetting it")


async def test_thaws_by_itself_at_its_limit(lab: Lab) -> None:
    container = started(lab)
    freezes = freezes_of(lab)
    freeze = await freezes.freeze(runc_target(container), 0.2)
    await eventually_async(lambda: not is_frozen(container), "the limit")
    assert_unharmed(container)
    thawed = await freezes.thaw(freeze.freeze_id)
    assert not thawed.was_frozen
    assert thawed.frozen_seconds > 0


@pytest.mark.parametrize("limit", [0, -1, 60.1, math.inf, math.nan])
async def test_a_limit_is_mandatory_and_limited(lab: Lab, limit: float) -> None:
    container = started(lab)
    with pytest.raises(InvalidArgument) as caught:
        await freezes_of(lab).freeze(runc_target(container), limit)
    assert caught.value.argument == "limit"
    assert not is_frozen(container)


async def test_what_is_not_there_is_not_frozen(lab: Lab) -> None:
    freezes = freezes_of(lab)
    with pytest.raises(TargetNotFound):
        await freezes.freeze(RuncTarget("nobody", lab.runc.path), 1)
    with pytest.raises(PodNotFound):
        await freezes.freeze(PodRef("0-0", "default", "nobody"), 1)
    with pytest.raises(FreezeNotFound):
        await freezes.thaw("nothing")


async def test_a_second_freeze_is_refused_and_leaves_the_first_alone(lab: Lab) -> None:
    container = started(lab)
    freezes = freezes_of(lab)
    freeze = await freezes.freeze(runc_target(container), 60)
    with pytest.raises(TargetFrozen):
        await freezes.freeze(runc_target(container), 60)
    assert is_frozen(container)
    await freezes.thaw(freeze.freeze_id)
    second = await freezes.freeze(runc_target(container), 60)
    await freezes.thaw(second.freeze_id)
    assert_unharmed(container)


async def test_stopping_thaws_everything(lab: Lab) -> None:
    containers = [started(lab), started(lab)]
    freezes = freezes_of(lab)
    for container in containers:
        await freezes.freeze(runc_target(container), 60)
    await freezes.stop()
    for container in containers:
        assert_unharmed(container)
    # It gives the journal a second, and what is under way then goes on.
    await eventually_async(lambda: not lab.operations(), "the journal forgetting both")


async def test_what_was_paused_by_somebody_else_stays_paused(lab: Lab) -> None:
    container = started(lab)
    lab.runc.run("pause", container.id)
    freezes = freezes_of(lab)
    freeze = await freezes.freeze(runc_target(container), 60)
    await freezes.thaw(freeze.freeze_id)
    assert is_frozen(container)
    lab.runc.run("resume", container.id)
    assert_unharmed(container)


async def test_a_caller_who_goes_away_leaves_nothing_frozen(lab: Lab) -> None:
    container = started(lab)
    freezes = freezes_of(lab)
    for turns in range(8):
        freezing = asyncio.create_task(freezes.freeze(runc_target(container), 60))
        for _ in range(turns):
            await asyncio.sleep(0.001)
        freezing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            freeze = await freezing
            await freezes.thaw(freeze.freeze_id)
        assert not is_frozen(container)
        # Nothing that goes on freezes it later.
        await eventually_async(lambda: not lab.operations(), "the journal forgetting it")
        assert not is_frozen(container)
    assert_unharmed(container)


async def test_what_is_frozen_can_be_checkpointed_and_stays_frozen(lab: Lab) -> None:
    container = started(lab)
    freezes = freezes_of(lab)
    freeze = await freezes.freeze(runc_target(container), 60)
    result = await lab.checkpoint(container)
    assert result.bytes_raw
    assert is_frozen(container)
    await freezes.thaw(freeze.freeze_id)
    assert_unharmed(container)


async def test_the_limit_holds_in_the_middle_of_a_checkpoint(lab: Lab) -> None:
    """Whatever becomes of that: CRIU, which found it frozen, freezes it again at its end."""
    container = started(lab)
    criu, hooked = lab.hook("post-dump")
    freezes = freezes_of(lab)
    freeze = await freezes.freeze(runc_target(container), 60)
    checkpointing = asyncio.create_task(hooked.checkpoint(container))
    await eventually_async(criu.reached, "the hook being reached")
    assert (await freezes.thaw(freeze.freeze_id)).was_frozen
    criu.release()
    await asyncio.wait({checkpointing})
    await eventually_async(lambda: not lab.operations(), "the journal forgetting it")
    assert_unharmed(container)
    checkpointing.exception()


async def test_while_it_is_being_checkpointed_it_is_busy(lab: Lab) -> None:
    container = started(lab)
    criu, hooked = lab.hook("post-dump")
    checkpointing = asyncio.create_task(hooked.checkpoint(container))
    await eventually_async(criu.reached, "the hook being reached")
    with pytest.raises(TargetBusy):
        await freezes_of(lab).freeze(runc_target(container), 60)
    criu.release()
    await checkpointing
    assert_unharmed(container)


async def test_after_a_kill_the_journal_thaws(lab: Lab) -> None:
    container = started(lab)
    with freezing_agent(lab, container) as process:
        wait_until(lambda: is_frozen(container), "its freeze")
        process.kill()
        process.wait()
    assert is_frozen(container)
    (recovered,) = await recover(tools=lambda: lab.tools, state_dir=lab.state_dir)
    assert (recovered.kind, recovered.thawed) == ("freeze", True)
    assert_unharmed(container)
    assert lab.operations() == []


@contextlib.contextmanager
def freezing_agent(lab: Lab, container: Container) -> Iterator[subprocess.Popen[bytes]]:
    """A process that keeps a container frozen."""
    words = [str(lab.state_dir), str(lab.runc.path), container.id]
    with subprocess.Popen(
        [sys.executable, "-m", "tests.fakes.freezing_agent", *words],
        stdin=subprocess.DEVNULL,
        env=environment(),
    ) as process:
        try:
            yield process
        finally:
            process.kill()
