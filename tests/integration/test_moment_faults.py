"""Several containers in one checkpoint, and something goes wrong: all run on, nothing is stored."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Callable

import pytest

from agent.checkpoint import MemberRequest
from agent.compress import parse_compression
from agent.errors import (
    AlreadyExists,
    DumpFailed,
    InvalidArgument,
    StoreFailed,
    TargetBusy,
    TargetNotCheckpointable,
)
from agent.host import runc
from agent.store.base import Store
from agent.targets import Kind, ProcessTarget, RuncTarget
from bench.bundle import COUNTER
from bench.reports import wait_until
from bench.runc import Container
from tests.fakes.slow_store import Gate, Step, gated
from tests.fakes.stores import failing
from tests.integration.aftermath import assert_unharmed, nothing_left
from tests.integration.agents import checkpointing_together, kill_together, recovered
from tests.integration.lab import Lab, target_of
from tests.integration.moments import Ring, ring, volume
from tests.integration.trees import processes, started_tree
from tests.waiting import eventually_async

pytestmark = [pytest.mark.root, pytest.mark.criu]


def remapper(lab: Lab) -> Container:
    """A container that CRIU refuses: a file that it has open is gone under that name."""
    bundle = lab.runc.build(COUNTER)
    path = bundle.path / "config.json"
    config = json.loads(path.read_text())
    steps = (
        "exec 9>/state/a", "/bin/busybox ln /state/a /state/b", "/bin/busybox rm /state/a",
        "exec /bin/counter /state/counter",
    )  # fmt: skip
    config["process"]["args"] = ["/bin/sh", "-c", "; ".join(steps)]
    path.write_text(json.dumps(config))
    return lab.runc.start(bundle)


def standing_still(made: Ring, seconds: float = 0.3) -> Callable[[], bool]:
    """A condition: none has passed the number on for as long."""
    last, since = made.numbers(), time.monotonic()

    def condition() -> bool:
        nonlocal last, since
        if (numbers := made.numbers()) != last:
            last, since = numbers, time.monotonic()
        return time.monotonic() - since >= seconds

    return condition


def counters(lab: Lab, number: int) -> list[Container]:
    """Containers that have nothing to do with each other."""
    return [lab.runc.start(lab.runc.build(COUNTER)) for _ in range(number)]


async def test_one_that_cannot_be_dumped_takes_the_others_along(lab: Lab) -> None:
    made, refused = ring(lab, 20, 20), remapper(lab)
    members = (*made.request().members, MemberRequest(target_of(refused), "mapper"))
    with nothing_left(lab):
        with pytest.raises(DumpFailed, match=r"'mapper'.*--link-remap") as caught:
            await made.checkpoint(members=members)
        made.assert_goes_on()
    assert refused.id in caught.value.target
    assert_unharmed(refused)
    await made.checkpoint()


@pytest.mark.parametrize("step", ["create", "write", "commit", "manifest"])
async def test_a_store_that_fails(lab: Lab, step: Step) -> None:
    made = ring(lab, 2, 2)
    broken: Store = failing(lab.store, step, 0)
    with nothing_left(lab):
        with pytest.raises(StoreFailed):
            await made.checkpoint(store=broken)
        made.assert_goes_on()


async def test_given_up_while_all_are_frozen(lab: Lab) -> None:
    """The store is stuck, the memory full, and CRIU waits for the agent."""
    made, gate = ring(lab, 60, 60), Gate()
    with nothing_left(lab):
        stuck = gated(lab.store, "write", gate)
        how = parse_compression("none")
        work = asyncio.create_task(made.checkpoint(store=stuck, compression=how))
        try:
            await eventually_async(standing_still(made), "all of them standing still")
            assert not work.done()
            work.cancel()
        finally:
            gate.open()
        with pytest.raises(asyncio.CancelledError):
            await work
        made.assert_goes_on()
    await made.checkpoint()


async def test_thawed_by_somebody_else_in_the_middle(lab: Lab) -> None:
    """Four are being dumped, and the other two run on before it is their turn."""
    made, gate = ring(lab, 60, 60, 60, 60, 1, 1), Gate()
    with nothing_left(lab):
        stuck = gated(lab.store, "write", gate)
        how = parse_compression("none")
        work = asyncio.create_task(made.checkpoint(store=stuck, compression=how))
        try:
            await eventually_async(standing_still(made), "all of them standing still")
            for container in made.containers:
                freezer = runc.load(RuncTarget(container.id, lab.runc.path)).freezer
                assert freezer is not None
                freezer.thaw()
        finally:
            gate.open()
        with pytest.raises(DumpFailed, match="thawed by somebody else"):
            await work
        made.assert_goes_on()
    await made.checkpoint()


@pytest.mark.parametrize("hook", ["pre-dump", "post-dump"])
@pytest.mark.parametrize("everybody", [False, True], ids=["agent", "everybody"])
async def test_kill_9_while_all_are_frozen(lab: Lab, hook: str, everybody: bool) -> None:
    made = counters(lab, 3)
    criu, _ = lab.hook(hook)
    with nothing_left(lab), checkpointing_together(lab, made, criu) as agent:
        wait_until(lambda: criu.hooks().count(hook) == 3, "all of them being dumped")
        if everybody:
            kill_together(each.pid for each in processes(str(lab.state_dir)))
        agent.kill()
        agent.wait()
        criu.release()
        await recovered(lab)
    for each in made:
        assert_unharmed(each)


async def test_nobody_else_gets_one_of_them_meanwhile(lab: Lab) -> None:
    made, gate = ring(lab, 2, 2), Gate()
    work = asyncio.create_task(made.checkpoint(store=gated(lab.store, "manifest", gate)))
    await eventually_async(lambda: gate.reached.is_set(), "the commit")
    with pytest.raises(TargetBusy):
        await lab.checkpoint(made.containers[1])
    gate.open()
    await work


async def test_requests_that_make_no_sense(lab: Lab) -> None:
    made = ring(lab, 1)
    [only] = made.request().members
    with nothing_left(lab), started_tree(lab.directory, COUNTER) as tree:
        await refused(made, InvalidArgument, "there is none", members=())
        await refused(made, InvalidArgument, "'c0' is there twice", members=(only, only))
        twice = (only, MemberRequest(only.target, "again"))
        await refused(made, InvalidArgument, "twice", members=twice)
        away = MemberRequest(only.target, "a/b")
        await refused(made, InvalidArgument, "'a/b' cannot be a name", members=(away,))
        await refused(made, InvalidArgument, "no checkpoint's id", checkpoint_id="../x")
        await refused(made, InvalidArgument, "nan is not above 0", frozen_limit=math.nan)
        pair = (only, MemberRequest(ProcessTarget(tree.pid), "p"))
        await refused(made, TargetNotCheckpointable, "no cgroup of its own", members=pair)
        await refused(made, TargetNotCheckpointable, "no overlay", kind=Kind.ROOTFS)
        gone = (volume(lab.directory / "gone"),)
        await refused(made, TargetNotCheckpointable, "no directory", volumes=gone)
        made.assert_goes_on()


async def refused(made: Ring, error: type[Exception], words: str, **fields: object) -> None:
    """It is not even begun."""
    with pytest.raises(error, match=words):
        await made.checkpoint(**fields)


async def test_an_id_is_used_once(lab: Lab) -> None:
    made = ring(lab, 1, 1)
    done = await made.checkpoint(checkpoint_id="action-7")
    assert done.checkpoint_id == "action-7"
    before = lab.stored()

    with pytest.raises(AlreadyExists):
        await made.checkpoint(checkpoint_id="action-7")

    assert lab.stored() == before
