"""Processes that are taken off their GPUs and brought back, whatever goes wrong in between."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, aclosing
from pathlib import Path

import psutil
import pytest

from agent.gpu import (
    GpuProcess,
    Suspension,
    find_processes,
    resume,
    suspending,
    visible_minors,
)
from agent.host.cuda import Cuda, CudaFailed, CudaState, client
from agent.report import Phases
from tests import gpus as stand_ins
from tests.gpus import FakeGpus, fake_gpus, gpu_process, process_with_devices

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def gpus(tmp_path_factory: pytest.TempPathFactory) -> FakeGpus:
    return fake_gpus(tmp_path_factory.mktemp("gpus") / "driver")


@pytest.fixture
def ranks(gpus: FakeGpus, tmp_path: Path) -> Iterator[list[stand_ins.GpuProcess]]:
    with ExitStack() as stack:
        roots = [tmp_path / name for name in ("first", "second", "third")]
        yield [stack.enter_context(gpu_process(gpus, root)) for root in roots]


@pytest.fixture
async def cuda(gpus: FakeGpus, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Cuda]:
    monkeypatch.setenv("CHECKPOINT_AGENT_CUDA_LIBRARIES", str(gpus.libraries))
    made = Cuda()
    yield made
    await made.aclose()


async def found(cuda: Cuda, ranks: list[stand_ins.GpuProcess]) -> list[GpuProcess]:
    return await find_processes(cuda, [rank.pid for rank in ranks])


async def states(cuda: Cuda, ranks: list[stand_ins.GpuProcess]) -> set[CudaState | None]:
    return {await cuda.state(rank.pid) for rank in ranks}


async def test_all_are_off_their_gpus_in_the_block(
    cuda: Cuda, ranks: list[stand_ins.GpuProcess]
) -> None:
    phases = Phases()
    async with Suspension(cuda, await found(cuda, ranks), phases) as suspension:
        assert await states(cuda, ranks) == {CudaState.CHECKPOINTED}
        before = suspension.seconds
        assert before > 0
    assert suspension.problem is None
    assert suspension.seconds > before
    assert set(phases.seconds) == {"cuda_lock", "cuda_checkpoint", "cuda_restore"}
    for rank in ranks:
        rank.goes_on()


async def test_what_has_ended_is_not_brought_back(
    cuda: Cuda, ranks: list[stand_ins.GpuProcess]
) -> None:
    async with Suspension(cuda, await found(cuda, ranks), Phases()) as suspension:
        suspension.stays = True
    assert await states(cuda, ranks) == {CudaState.CHECKPOINTED}


@pytest.mark.parametrize(
    "fault",
    ["lock error 600", "checkpoint error 2", "checkpoint crash 0", "lock crash 0"],
)
async def test_one_that_fails_takes_none_along(
    cuda: Cuda, ranks: list[stand_ins.GpuProcess], fault: str
) -> None:
    members = await found(cuda, ranks)
    ranks[1].suffer(fault)
    reached = False
    with pytest.raises(CudaFailed):
        async with Suspension(cuda, members, Phases()):
            reached = True
    assert not reached
    ranks[1].recover()
    assert await states(cuda, ranks) == {CudaState.RUNNING}
    for rank in ranks:
        rank.goes_on()


async def test_a_lock_that_comes_about_after_it_was_given_up(
    cuda: Cuda, ranks: list[stand_ins.GpuProcess]
) -> None:
    """The call hangs in the helper for longer than anybody waits, and then succeeds after all."""
    members = await found(cuda, ranks)
    giving_up = asyncio.create_task(_suspend(cuda, members))
    await asyncio.sleep(0.01)
    giving_up.cancel()
    with pytest.raises(asyncio.CancelledError):
        await giving_up
    assert await states(cuda, ranks) == {CudaState.RUNNING}
    for rank in ranks:
        rank.goes_on()


async def _suspend(cuda: Cuda, members: list[GpuProcess], *, after: float = 0) -> None:
    await asyncio.sleep(after)
    async with Suspension(cuda, members, Phases()):
        await asyncio.sleep(60)


@pytest.fixture
def watchful(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call is given up after 2 s, and the driver watched for 8 more.

    A lock that comes 4 s after it was asked for comes in between also where the helper, or whoever
    watches it, stands still for five.
    """
    monkeypatch.setattr(client, "_MARGIN_SECONDS", 2.0)
    monkeypatch.setattr(suspending, "LATE_SECONDS", 8.0)


@pytest.mark.usefixtures("watchful")
async def test_a_lock_that_nobody_waits_for_any_more_is_lifted(
    cuda: Cuda, ranks: list[stand_ins.GpuProcess]
) -> None:
    """The driver does it although whoever asked has died; longer after than it was given."""
    members = await found(cuda, ranks)
    ranks[1].suffer("lock late 4000")
    with pytest.raises(CudaFailed, match="no answer within"):
        async with Suspension(cuda, members, Phases(), lock_seconds=0.1):
            pass
    ranks[1].recover()
    assert await states(cuda, ranks) == {CudaState.RUNNING}
    for rank in ranks:
        rank.goes_on()


@pytest.mark.usefixtures("watchful")
async def test_it_is_lifted_also_when_whoever_asked_has_given_up(
    cuda: Cuda, ranks: list[stand_ins.GpuProcess]
) -> None:
    members = await found(cuda, ranks)
    ranks[1].suffer("lock late 4000")
    began = time.monotonic()
    suspension = Suspension(cuda, members, Phases(), lock_seconds=0.1)
    giving_up = asyncio.create_task(suspension.__aenter__())
    # Once while the call is out, and once while the driver is watched.
    for seconds in (1, 6):
        await asyncio.sleep(began + seconds - time.monotonic())
        giving_up.cancel()
    with pytest.raises(asyncio.CancelledError):
        await giving_up
    ranks[1].recover()
    assert await states(cuda, ranks) == {CudaState.RUNNING}


async def test_a_helper_that_is_killed_in_the_block_is_replaced(
    cuda: Cuda, ranks: list[stand_ins.GpuProcess]
) -> None:
    async with Suspension(cuda, await found(cuda, ranks), Phases()) as suspension:
        for helper in psutil.Process().children():
            if "agent.host.cuda.helper" in helper.cmdline():
                helper.kill()
    assert suspension.problem is None
    for rank in ranks:
        rank.goes_on()


async def test_two_at_once_share_a_helper(
    cuda: Cuda, ranks: list[stand_ins.GpuProcess], gpus: FakeGpus, tmp_path: Path
) -> None:
    """One takes the helper down while the other one's processes are on their way back."""
    with gpu_process(gpus, tmp_path / "fourth") as other:
        async with Suspension(cuda, await found(cuda, [other]), Phases()) as suspension:
            other.suffer("restore slow 2500")
            ranks[0].suffer("lock crash 0")
            crash = asyncio.create_task(_suspend(cuda, await found(cuda, ranks), after=0.7))
        assert suspension.problem is None
        other.recover()
        with pytest.raises(CudaFailed, match="died of it"):
            await crash
        ranks[0].recover()
        for rank in (*ranks, other):
            rank.goes_on()


async def test_an_error_in_the_block_is_what_is_raised(
    cuda: Cuda, ranks: list[stand_ins.GpuProcess]
) -> None:
    with pytest.raises(OSError, match="disk"):
        async with Suspension(cuda, await found(cuda, ranks), Phases()):
            raise OSError("disk")
    for rank in ranks:
        rank.goes_on()


async def test_one_that_cannot_come_back_is_told_and_keeps_no_other_away(
    cuda: Cuda, ranks: list[stand_ins.GpuProcess]
) -> None:
    members = await found(cuda, ranks)
    async with Suspension(cuda, members, Phases()) as suspension:
        ranks[1].suffer("restore error 2")
    assert suspension.problem is not None
    assert suspension.problem.result == "CUDA_ERROR_OUT_OF_MEMORY"
    assert suspension.problem.pid == ranks[1].pid
    for rank in (ranks[0], ranks[2]):
        rank.goes_on()
    # Later there is room, and whoever cleans up tries again.
    ranks[1].recover()
    await resume(cuda, members)
    ranks[1].goes_on()


async def test_giving_up_does_not_hide_one_that_cannot_come_back(
    cuda: Cuda, ranks: list[stand_ins.GpuProcess]
) -> None:
    suspension = Suspension(cuda, await found(cuda, ranks), Phases())
    await suspension.__aenter__()
    ranks[0].suffer("restore held 0")
    ranks[1].suffer("restore error 2")
    leaving = asyncio.create_task(suspension.__aexit__(None, None, None))
    await asyncio.sleep(0.5)
    leaving.cancel()
    ranks[0].recover()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert suspension.problem is not None
    assert suspension.problem.pid == ranks[1].pid


async def test_resuming_from_wherever_a_dead_agent_left_them(
    cuda: Cuda, ranks: list[stand_ins.GpuProcess]
) -> None:
    members = await found(cuda, ranks)
    await cuda.lock(ranks[0].pid, 5)
    await cuda.lock(ranks[1].pid, 5)
    await cuda.checkpoint(ranks[1].pid, 30)
    async with aclosing(Cuda()) as another:
        await resume(another, members)
    for rank in ranks:
        rank.goes_on()


async def test_one_that_is_gone_needs_nothing(cuda: Cuda, gpus: FakeGpus, tmp_path: Path) -> None:
    with gpu_process(gpus, tmp_path / "short") as rank:
        members = await found(cuda, [rank])
    await resume(cuda, members)


async def test_a_process_in_the_state_failed_is_told(
    cuda: Cuda, ranks: list[stand_ins.GpuProcess]
) -> None:
    members = await found(cuda, ranks)
    ranks[0].suffer("checkpoint failed 999")
    suspension = Suspension(cuda, members, Phases())
    with pytest.raises(CudaFailed, match="CUDA_ERROR_UNKNOWN"):
        async with suspension:
            pass
    assert suspension.problem is not None
    assert await cuda.state(ranks[0].pid) is CudaState.FAILED
    for rank in ranks[1:]:
        rank.goes_on()


async def test_only_those_that_use_one_are_found(
    cuda: Cuda, ranks: list[stand_ins.GpuProcess]
) -> None:
    pids = [1, 999_999_999, *(rank.pid for rank in ranks)]
    members = await find_processes(cuda, pids)
    assert [each.pid for each in members] == sorted(rank.pid for rank in ranks)
    assert {each.state for each in members} == {CudaState.RUNNING}


async def test_one_that_inherited_a_gpu_is_found_though_the_driver_does_not_know_it(
    cuda: Cuda, ranks: list[stand_ins.GpuProcess]
) -> None:
    """CRIU cannot dump it, and nobody wants to hear that when all stand still."""
    with process_with_devices() as pid:
        members = await find_processes(cuda, [pid, ranks[0].pid])
        assert {each.pid: each.state for each in members} == {
            pid: None,
            ranks[0].pid: CudaState.RUNNING,
        }
        assert visible_minors(pid) == {3, 5}
    assert visible_minors(pid) == set()
