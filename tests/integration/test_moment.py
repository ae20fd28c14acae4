"""Several containers in one checkpoint: of one moment, all of them or none."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from agent.capture.buffers import SharedPool
from agent.checkpoint import checkpoint
from agent.chunks import read_manifest
from agent.compress import parse_compression
from agent.config import MIB
from agent.errors import InvalidArgument, RestoreFailed
from agent.manifest import Options
from agent.report import Captured
from agent.restore import RestoreRequest, restore
from agent.verify import verify
from tests.cli_process import only_document, run_cli
from tests.fakes.slow_store import Gate, gated
from tests.integration.aftermath import assert_gone, is_frozen, nothing_left
from tests.integration.lab import Lab
from tests.integration.moments import POD, imaged_numbers, is_one_moment, ring
from tests.waiting import eventually_async

pytestmark = [pytest.mark.root, pytest.mark.criu]


async def test_three_containers_are_of_one_moment(lab: Lab) -> None:
    made = ring(lab, 1, 40, 8)

    for _ in range(3):
        done = await made.checkpoint()

        numbers = imaged_numbers(lab, done.checkpoint_id)
        assert is_one_moment(numbers), numbers
        made.assert_goes_on()
    assert (await verify(lab.store, done.checkpoint_id)).members == 3
    manifest = read_manifest(lab.store, done.checkpoint_id)
    assert (manifest.pod, manifest.kind, manifest.streamed) == (POD, "simple", True)
    assert done.containers == [member.name for member in manifest.members] == ["c0", "c1", "c2"]
    assert [member.target for member in manifest.members] == [each.id for each in made.containers]
    assert 0 < done.frozen_seconds < done.wall_seconds


async def test_one_after_the_other_they_are_not(lab: Lab) -> None:
    """What the freeze of all of them is for, and that the test above would see it missing."""
    made = ring(lab, 1, 1)

    numbers = []
    for each in made.containers:
        done = await lab.checkpoint(each)
        numbers += imaged_numbers(lab, done.checkpoint_id)

    assert not is_one_moment(numbers)


async def test_a_pause_by_the_owner_outlasts_it(lab: Lab) -> None:
    made = ring(lab, 1, 1)
    paused, other = made.containers
    lab.runc.run("pause", paused.id)

    done = await made.checkpoint()

    assert is_one_moment(imaged_numbers(lab, done.checkpoint_id))
    assert paused.status() == "paused"
    assert not is_frozen(other)
    lab.runc.run("resume", paused.id)
    made.assert_goes_on()


async def test_stopped_together_and_restored_together(lab: Lab) -> None:
    made = ring(lab, 1, 4, 1)

    done = await made.checkpoint(stop=True)

    assert done.stopped
    assert lab.runc.containers() == []
    numbers = imaged_numbers(lab, done.checkpoint_id)
    assert is_one_moment(numbers)
    assert numbers == made.numbers()

    result = await lab.restore(done.checkpoint_id)

    made.assert_goes_on()
    names = [(one.name, one.container_id) for one in result.members]
    assert names == [(f"c{n}", each.id) for n, each in enumerate(made.containers)]
    assert [one.pid for one in result.members] == [each.pid() for each in made.containers]
    assert (result.target, result.not_restored) == (made.containers[0].id, [])
    assert lab.operations() == []


async def test_one_of_several_is_restored(lab: Lab) -> None:
    made = ring(lab, 1, 1)
    done = await made.checkpoint(stop=True)
    request = RestoreRequest(
        lab.store, done.checkpoint_id, member="c1", container_prefix="again",
        options=Options(manage_cgroups_mode="ignore"),
    )  # fmt: skip

    result = await restore(request, tools=lab.tools, state_dir=lab.state_dir)

    assert lab.runc.containers() == ["again-c1"]
    assert [(one.name, one.container_id) for one in result.members] == [("c1", "again-c1")]


async def test_the_command_line_restores_one_of_several(lab: Lab) -> None:
    made = ring(lab, 1, 1)
    done = await made.checkpoint(stop=True)

    words = (done.path, "--member", "c1", "--id", "other", "--state-dir", str(lab.state_dir))
    ended = await asyncio.to_thread(run_cli, "restore", *words, "-o", "json")
    assert ended.returncode == 0, ended.stderr
    printed = only_document(ended.stdout)

    assert lab.runc.containers() == ["other"]
    assert [one["name"] for one in printed["members"]] == ["c1"]


async def test_what_is_restored_already_goes_when_a_later_one_fails(lab: Lab) -> None:
    made = ring(lab, 1, 1, 1)
    done = await made.checkpoint(stop=True)
    # CRIU opens it again for the process that ran it.
    program = made.containers[1].bundle.path / "rootfs" / "bin" / "exchange"
    program.rename(program.with_suffix(".away"))
    with nothing_left(lab):
        with pytest.raises(RestoreFailed) as caught:
            await lab.restore(done.checkpoint_id)
        for each in made.containers:
            assert_gone(each)
    assert caught.value.target == made.containers[1].id

    program.with_suffix(".away").rename(program)
    await lab.restore(done.checkpoint_id)
    made.assert_goes_on()


async def test_what_is_for_one_container_is_refused_for_several(lab: Lab) -> None:
    made = ring(lab, 1, 1)
    done = await made.checkpoint(stop=True)

    with pytest.raises(InvalidArgument, match="for one container"):
        await lab.restore(done.checkpoint_id, container="other")
    request = RestoreRequest(lab.store, done.checkpoint_id, member="c2")
    with pytest.raises(InvalidArgument, match="'c2' is none of c0, c1"):
        await restore(request, tools=lab.tools, state_dir=lab.state_dir)
    assert lab.runc.containers() == []


async def test_all_run_again_while_it_is_still_being_stored(lab: Lab) -> None:
    """Staging memory as large as the images, and a store that takes nothing at all for a while."""
    made, gate, told = ring(lab, 40, 40), Gate(), list[Captured]()
    slow = replace(lab, store=gated(lab.store, "write", gate))
    request = made.request(store=slow.store, compression=parse_compression("none"))
    pool = SharedPool(128 * MIB)
    work = asyncio.create_task(
        checkpoint(
            request, tools=lab.tools, state_dir=lab.state_dir, on_captured=told.append, pool=pool
        )
    )
    try:
        await eventually_async(lambda: bool(told), "everything being captured")
        made.assert_goes_on()
        assert lab.stored() == []
        assert not work.done()
        assert gate.waiting
    finally:
        gate.open()
    done = await work

    [captured] = told
    assert captured.checkpoint_id == done.checkpoint_id
    assert captured.frozen_seconds == done.frozen_seconds
    assert 80 * MIB < captured.bytes_raw <= done.bytes_raw
    assert is_one_moment(imaged_numbers(lab, done.checkpoint_id))
    assert len(pool.free) == pool.count
