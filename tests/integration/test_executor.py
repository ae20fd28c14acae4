"""Actions on real containers: their states, their failures, what is left of one given up."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from agent.chunks import read_manifest
from agent.messages.model import (
    ActionRequest,
    CheckpointOverrides,
    CheckpointSpec,
    RestoreOutcome,
    RestoreOverrides,
    RestoreSpec,
    State,
)
from agent.store import open_checkpoint
from agent.targets import PodRef, ProcessTarget, RuncTarget
from agent.verify import verify
from bench.bundle import COUNTER, memory
from bench.reports import Counter
from bench.runc import Container
from tests.integration.aftermath import assert_unharmed, is_frozen, nothing_left
from tests.integration.executors import checkpoint_of, events_of, executing, restore_of
from tests.integration.lab import Lab
from tests.waiting import PATIENCE, eventually_async

pytestmark = [pytest.mark.root, pytest.mark.criu]


def started(lab: Lab, mib: int = 8) -> Container:
    """A container that counts and holds memory."""
    return lab.runc.start(lab.runc.build(COUNTER, memory(mib)))


async def test_ready_is_a_checkpoint_that_verifies_and_can_be_restored(lab: Lab) -> None:
    container = started(lab)
    async with executing(lab) as executor:
        await executor.submit(checkpoint_of(container))
        action = await executor.wait("a")
        outcome = action.event.checkpoint
        assert outcome is not None, action.event.failure
        assert [each.state for each in await events_of(executor)] == [
            State.INITIALIZED, State.PROCESSING, State.CHECKPOINT_CREATED, State.READY,
        ]  # fmt: skip
        created = (await events_of(executor))[2].checkpoint
        assert created is not None
        assert (created.checkpoint_id, created.path) == (outcome.checkpoint_id, outcome.path)
        assert created.frozen_seconds > 0
        assert outcome.bytes_raw >= 8 << 20
        assert outcome.containers == (container.id,)
        assert_unharmed(container)
        await verify(*open_checkpoint(outcome.path))

        container.delete()
        await executor.submit(restore_of(outcome.path))
        restored = (await executor.wait("r")).event
        assert isinstance(restored.restore, RestoreOutcome), restored.failure
        (member,) = restored.restore.members
        assert member.container_id == container.id
        report = container.report("counter")
        report.wait_beyond(Counter.TICKS, report.read(Counter.TICKS) + 10)


@pytest.mark.slow
async def test_the_containers_run_again_before_it_is_stored(lab: Lab) -> None:
    """With memory for all of it, a slow codec keeps nobody waiting, and no other action either."""
    container, other = started(lab, 20), started(lab)
    slow = CheckpointOverrides(asynchronous=True, compression="zstd:19")
    async with executing(lab, staging_bytes=64 << 20, concurrency=1) as executor:
        await executor.submit(checkpoint_of(container, "slow", slow))
        await executor.submit(checkpoint_of(other, "fast", CheckpointOverrides(compression="lz4")))
        created = await executor.wait("slow", {State.CHECKPOINT_CREATED})
        assert created.state is State.CHECKPOINT_CREATED
        assert not is_frozen(container)
        assert (await executor.wait("fast")).state is State.READY
        assert (await executor.get("slow")).state is State.CHECKPOINT_CREATED
        done = await executor.wait("slow")
        assert done.state is State.READY, done.event.failure


async def test_what_is_not_there_is_answered_at_once(lab: Lab, tmp_path: Path) -> None:
    specs = {
        "container": CheckpointSpec(RuncTarget("nobody", lab.runc.path)),
        "pod": CheckpointSpec(PodRef("0-0", "default", "nobody")),
        "process": CheckpointSpec(ProcessTarget(2**22 + 1)),
    }
    async with executing(lab) as executor, asyncio.timeout(PATIENCE):
        for name, spec in specs.items():
            await executor.submit(ActionRequest(name, spec))
        for name in specs:
            failure = (await executor.wait(name)).event.failure
            assert failure is not None
            assert failure.code in ("target_not_found", "pod_not_found")
            assert failure.state == "nothing was touched"
        await executor.submit(restore_of(f"{lab.store.url}/nothing"))
        failure = (await executor.wait("r")).event.failure
        assert failure is not None
        assert failure.code == "checkpoint_not_found"
    assert not lab.operations()


@pytest.mark.parametrize(
    ("overrides", "field"),
    [
        (CheckpointOverrides(criu_opts='{"images_dir": "/etc"}'), "criuOpts"),
        (CheckpointOverrides(compression="gzip"), "compression"),
        (CheckpointOverrides(streams=1000), "streams"),
        (CheckpointOverrides(directory="/etc"), "directory"),
    ],
)
async def test_what_may_not_be_asked_for_is_refused_before_anything_is_touched(
    lab: Lab, overrides: CheckpointOverrides, field: str
) -> None:
    container = started(lab, 1)
    async with executing(lab) as executor:
        await executor.submit(checkpoint_of(container, "a", overrides))
        failure = (await executor.wait("a")).event.failure
        assert failure is not None
        assert (failure.code, failure.field) == (
            "invalid_argument", f"checkpoint.overrides.{field}",
        )  # fmt: skip
    assert not (lab.state_dir / "operations").exists()
    assert not _store_of(lab).exists()
    assert_unharmed(container)


async def test_criu_options_of_a_request_reach_criu(lab: Lab) -> None:
    """Merged over the node's: the manifest says what the dump was told."""
    container = started(lab, 1)
    given = CheckpointOverrides(
        criu_opts='{"file_locks": true, "tcp_skip_in_flight": true, "ghost_limit": 65536,'
        ' "log_level": 2}'
    )
    async with executing(lab, criu_opts={"link_remap": True}) as executor:
        await executor.submit(checkpoint_of(container, "a", given))
        event = (await executor.wait("a")).event
        assert event.checkpoint is not None, event.failure
        assert event.checkpoint.streamed, event.checkpoint.fallback_reason
        store, name = open_checkpoint(event.checkpoint.path)
        # Also when it is restored.
        container.delete()
        await executor.submit(restore_of(event.checkpoint.path))
        restored = (await executor.wait("r")).event
        assert restored.restore is not None, restored.failure
    options = read_manifest(store, name).members[0].options
    assert (options.file_locks, options.tcp_skip_in_flight) == (True, True)
    assert (options.ghost_limit, options.link_remap) == (65536, True)


async def test_a_store_that_cannot_be_written_is_an_error_that_says_so(lab: Lab) -> None:
    container = started(lab, 1)
    place = _store_of(lab)
    place.touch()
    async with executing(lab) as executor:
        await executor.submit(checkpoint_of(container))
        failure = (await executor.wait("a")).event.failure
        assert failure is not None
        assert failure.code == "store_failed"
        assert str(place) in failure.message
        assert "check free space" in failure.hint
        assert failure.state
    assert_unharmed(container)


async def test_given_up_in_the_middle_of_a_dump(lab: Lab) -> None:
    container = started(lab)
    criu, hooked = lab.hook("post-dump")
    with nothing_left(lab):
        async with executing(hooked) as executor:
            await executor.submit(checkpoint_of(container))
            await eventually_async(criu.reached, "the hook being reached")
            cancelling = asyncio.create_task(executor.cancel("a"))
            await asyncio.sleep(0.05)
            criu.release()
            action = await cancelling
            assert action.event.failure is not None
            assert action.event.failure.code == "cancelled"
            assert_unharmed(container)
            assert lab.stored() == []
            # And it can be checkpointed as if nothing had been.
            await executor.submit(checkpoint_of(container, "b"))
            assert (await executor.wait("b")).state is State.READY
            _discard(lab)
        _forget_journal(lab)
    assert_unharmed(container)


async def test_stopping_the_agent_rolls_back_what_does_not_finish(lab: Lab) -> None:
    container = started(lab)
    criu, hooked = lab.hook("network-lock")
    async with executing(hooked, grace=0.1) as executor:
        await executor.submit(checkpoint_of(container))
        await eventually_async(criu.reached, "the hook being reached")
        stopping = asyncio.create_task(executor.stop(0.05))
        await asyncio.sleep(0.2)
        criu.release()
        await stopping
        failure = (await executor.get("a")).event.failure
        assert failure is not None
        assert failure.code == "agent_stopping"
    assert_unharmed(container)
    assert lab.stored() == []


async def test_two_on_one_container_come_one_after_the_other(lab: Lab) -> None:
    container = started(lab)
    async with executing(lab, concurrency=4) as executor:
        names = ["a", "b", "c"]
        for name in names:
            await executor.submit(checkpoint_of(container, name))
        for name in names:
            action = await executor.wait(name)
            # Side by side, the second would be told that the target is busy.
            assert action.state is State.READY, action.event.failure
        assert len(lab.store.directories()) == 3
    assert_unharmed(container)


async def test_restored_under_another_name_and_with_other_options(lab: Lab) -> None:
    container = started(lab, 1)
    async with executing(lab) as executor:
        await executor.submit(checkpoint_of(container))
        outcome = (await executor.wait("a")).event.checkpoint
        assert outcome is not None
        container.delete()
        overrides = RestoreOverrides(pod_name="copy", criu_opts='{"tcp_established": true}')
        spec = RestoreSpec(outcome.path, overrides=overrides)
        await executor.submit(ActionRequest("r", spec))
        event = (await executor.wait("r")).event
        assert event.restore is not None, event.failure
        (member,) = event.restore.members
        assert (member.name, member.container_id) == (container.id, f"copy-{container.id}")
        assert lab.runc.containers() == [f"copy-{container.id}"]
        wrong = {
            "restore.member": RestoreSpec(outcome.path, member="nobody"),
            "restore.containerId": RestoreSpec(outcome.path, container_id="../x"),
            "restore.path": RestoreSpec("/etc/passwd"),
            "restore.overrides.podName": RestoreSpec(
                outcome.path, overrides=RestoreOverrides(pod_name="../x")
            ),
            "restore.overrides.criuOpts": RestoreSpec(
                outcome.path, overrides=RestoreOverrides(criu_opts='{"exec_cmd": ["sh"]}')
            ),
        }
        for field, spec in wrong.items():
            await executor.submit(ActionRequest(field, spec))
            failure = (await executor.wait(field)).event.failure
            assert failure is not None
            assert failure.field == field


def _store_of(lab: Lab) -> Path:
    return Path(lab.store.url.removeprefix("file://"))


def _discard(lab: Lab) -> None:
    for name in lab.store.directories():
        lab.store.discard(name)


def _forget_journal(lab: Lab) -> None:
    for path in lab.state_dir.glob("actions.db*"):
        path.unlink()
