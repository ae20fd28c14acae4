"""Whatever dies in the middle: the network is open again, and connections are usable."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from pathlib import Path

import pytest

from agent.checkpoint import CheckpointRequest, MemberRequest, checkpoint
from agent.errors import DumpFailed, NetworkStuck, RestoreFailed, StoreFailed
from agent.manifest import Options
from agent.operation.recovery import recover, thaw_abandoned
from agent.restore import for_new_network
from bench.bundle import COUNTER
from bench.reports import wait_until
from tests.fakes.slow_store import Step, WrappedStore
from tests.integration.aftermath import assert_unharmed, is_frozen, nothing_left
from tests.integration.agents import (
    Tool,
    kill_together,
    recovered,
    restoring,
    working,
)
from tests.integration.connections import KEPT, dumped, held_dump, idle
from tests.integration.lab import Lab, target_of
from tests.integration.trees import processes
from tests.integration.wired import (
    BESIDE,
    ELSEWHERE,
    HERE,
    PORT,
    move,
    place,
    wired,
)
from tests.networks import Stream, connect, echoed, filter_rules
from tests.waiting import eventually_async

pytestmark = [pytest.mark.root, pytest.mark.criu]


@pytest.mark.parametrize("step", ["create", "write", "commit", "manifest"])
async def test_the_store_fails(lab: Lab, step: Step) -> None:
    def fail(reached: Step) -> None:
        if reached == step:
            raise StoreFailed(step, lab.store.url, "it has had enough")

    at = wired(lab.runc)
    failing = lab.with_store(WrappedStore(lab.store, pass_=fail))
    with Stream(at.outside, HERE, PORT) as client:
        client.goes_on()
        with nothing_left(lab), pytest.raises(StoreFailed):
            await failing.checkpoint(at.container, stop=True, options=KEPT)
        client.goes_on()
    assert filter_rules(at.inside) == []


@pytest.mark.parametrize("hook", ["pre-dump", "network-lock", "post-dump"])
async def test_criu_is_killed_in_a_dump(lab: Lab, hook: str) -> None:
    at = wired(lab.runc)
    _, hooked = lab.hook(hook, "kill")
    with idle(at), nothing_left(lab), pytest.raises(DumpFailed):
        await hooked.checkpoint(at.container, stop=True, options=KEPT)


@pytest.mark.parametrize("tool", ["runc", "launcher"])
async def test_a_tool_is_killed_in_a_dump(lab: Lab, tool: Tool) -> None:
    at = wired(lab.runc)
    criu, hooked = lab.hook("post-dump")
    with idle(at), nothing_left(lab):
        work = asyncio.create_task(hooked.checkpoint(at.container, stop=True, options=KEPT))
        await eventually_async(criu.reached, "the hook being reached")
        os.kill(working(lab, tool), signal.SIGKILL)
        criu.release()
        with pytest.raises(DumpFailed):
            await work


@pytest.mark.parametrize("hook", ["network-lock", "post-dump"])
async def test_the_agent_is_killed_in_a_dump(lab: Lab, hook: str) -> None:
    at = wired(lab.runc)
    # All goes on by itself: even one who never pauses does not notice.
    with Stream(at.outside, HERE, PORT) as client, nothing_left(lab):
        client.goes_on()
        with held_dump(lab, at.container, hook) as (criu, agent):
            os.kill(agent, signal.SIGKILL)
            criu.release()
            wait_until(lambda: not processes(str(lab.state_dir)), "everybody ending")
            client.goes_on()
            assert filter_rules(at.inside) == []
        await recovered(lab)


@pytest.mark.parametrize("hook", ["network-lock", "post-dump"])
async def test_everybody_is_killed_in_a_dump(lab: Lab, hook: str) -> None:
    at = wired(lab.runc)
    with idle(at), nothing_left(lab), held_dump(lab, at.container, hook) as (criu, _):
        kill_together(each.pid for each in processes(str(lab.state_dir)))
        criu.release()
        await recovered(lab)


async def test_a_restore_that_fails_cuts_nobody_off(lab: Lab) -> None:
    at = wired(lab.runc)
    with connect(at.outside, HERE, PORT) as client:
        assert echoed(client, b"there") == b"there"
        checkpoint_id = await dumped(lab, at, stop=False)
    inside, outside = place(lab.runc, f"{ELSEWHERE}/24", f"{BESIDE}/24")
    move(at.container, inside)
    for _ in range(2):
        with nothing_left(lab), pytest.raises(RestoreFailed, match="restore with --tcp close"):
            await lab.restore(checkpoint_id)
        assert filter_rules(inside) == []
    await lab.restore(checkpoint_id, options=for_new_network(Options()))
    with connect(outside, ELSEWHERE, PORT) as client:
        assert echoed(client, b"new") == b"new"


async def test_a_restore_that_fails_leaves_connections_for_the_next(lab: Lab) -> None:
    at = wired(lab.runc)
    with Stream(at.outside, HERE, PORT) as client:
        client.goes_on()
        checkpoint_id = await dumped(lab, at, stop=True)
        _, hooked = lab.hook("post-restore", "fail")
        with nothing_left(lab), pytest.raises(RestoreFailed):
            await hooked.restore(checkpoint_id)
        assert filter_rules(at.inside)
        await lab.restore(checkpoint_id)
        client.goes_on()
        assert filter_rules(at.inside) == []


@pytest.mark.parametrize("hook", ["pre-restore", "post-restore"])
async def test_everybody_is_killed_in_a_restore(lab: Lab, hook: str) -> None:
    at = wired(lab.runc)
    with connect(at.outside, HERE, PORT) as client:
        assert echoed(client, b"there") == b"there"
        checkpoint_id = await dumped(lab, at, stop=False)
    criu, _ = lab.hook(hook)
    path = f"{lab.store.url}/{checkpoint_id}"
    with nothing_left(lab), restoring(lab, path, criu):
        wait_until(criu.reached, "the hook being reached")
        kill_together(each.pid for each in processes(str(lab.state_dir)))
        criu.release()
        await recovered(lab)
    assert filter_rules(at.inside) == []
    await lab.restore(checkpoint_id)


async def test_a_dump_that_cannot_open_the_network_says_so_and_it_is_opened_later(
    lab: Lab, busy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = wired(lab.runc)
    _, hooked = lab.hook("post-dump", "kill")
    with idle(at):
        with monkeypatch.context() as broken:
            broken.setenv("PATH", busy)
            with pytest.raises(NetworkStuck, match="it is busy; before that: checkpoint of"):
                await hooked.checkpoint(at.container, stop=True, options=KEPT)
            # All else was undone.
            assert lab.stored() == []
            [again] = await recover(tools=lambda: lab.tools, state_dir=lab.state_dir)
            assert "it is busy" in str(again.problem)
        assert filter_rules(at.inside)
        assert len(lab.operations()) == 1
        await recovered(lab)


async def test_who_pauses_it_while_its_network_is_locked_wants_it_to_stay_paused(
    lab: Lab, busy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = wired(lab.runc)
    _, hooked = lab.hook("post-dump", "kill")
    with monkeypatch.context() as broken:
        broken.setenv("PATH", busy)
        with pytest.raises(NetworkStuck):
            await hooked.checkpoint(at.container, stop=True, options=KEPT)
        await recover(tools=lambda: lab.tools, state_dir=lab.state_dir)
        lab.runc.run("pause", at.container.id)
        [again] = await recover(tools=lambda: lab.tools, state_dir=lab.state_dir)
        assert "it is busy" in str(again.problem)
        assert thaw_abandoned(lab.state_dir) == set()
        assert is_frozen(at.container)
    await recovered(lab)
    assert is_frozen(at.container)
    lab.runc.run("resume", at.container.id)
    assert filter_rules(at.inside) == []


async def test_a_restore_that_cannot_open_the_network_says_so_and_it_is_opened_later(
    lab: Lab, busy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = wired(lab.runc)
    with connect(at.outside, HERE, PORT) as client:
        assert echoed(client, b"there") == b"there"
        checkpoint_id = await dumped(lab, at, stop=False)
    _, hooked = lab.hook("post-restore", "fail")
    with monkeypatch.context() as broken:
        broken.setenv("PATH", busy)
        with pytest.raises(NetworkStuck, match="it is busy; before that: restore of"):
            await hooked.restore(checkpoint_id)
        assert lab.runc.containers() == []
    assert len(lab.operations()) == 1
    assert filter_rules(at.inside)
    await recovered(lab)
    assert filter_rules(at.inside) == []


async def test_nothing_is_restored_into_a_network_that_nobody_can_look_into(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = wired(lab.runc)
    with connect(at.outside, HERE, PORT) as client:
        assert echoed(client, b"there") == b"there"
        checkpoint_id = await dumped(lab, at, stop=False)
    (tmp_path / "iptables").symlink_to("/bin/false")
    with monkeypatch.context() as broken:
        broken.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        with nothing_left(lab), pytest.raises(RestoreFailed, match="may be locked still"):
            await lab.restore(checkpoint_id)
    await lab.restore(checkpoint_id)


async def test_a_checkpoint_does_not_fail_because_nobody_can_look_at_networks(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    containers = [lab.runc.start(lab.runc.build(COUNTER)) for _ in range(2)]
    members = tuple(MemberRequest(target_of(container)) for container in containers)
    (tmp_path / "iptables").symlink_to("/bin/false")
    with monkeypatch.context() as broken:
        broken.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        request = CheckpointRequest(members, lab.store)
        done = await checkpoint(request, tools=lab.tools, state_dir=lab.state_dir)
    assert caplog.text.count("a network may be closed") == 2
    assert len(lab.operations()) == 1
    [again] = await recovered(lab)
    assert (again.problem, again.removed) == (None, False)
    assert f"{done.checkpoint_id}/manifest.json" in lab.stored()
    for container in containers:
        assert_unharmed(container)


@pytest.mark.parametrize("log_level", [4, 1, 0])
async def test_a_checkpoint_whose_criu_could_not_open_the_network(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log_level: int
) -> None:
    """It ends as if all were well, and only its log tells, if it has one."""
    at = wired(lab.runc)
    program, locked = tmp_path / "bin" / "iptables-restore", tmp_path / "locked"
    program.parent.mkdir()
    real = shutil.which("iptables-restore")
    script = f'[ -e {locked} ] && exit 4\n: > {locked}\nexec {real} "$@"\n'
    program.write_text(f"#!/bin/sh\n{script}")
    program.chmod(0o700)
    with idle(at), monkeypatch.context() as broken:
        broken.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
        told = KEPT.model_copy(update={"log_level": log_level})
        await lab.checkpoint(at.container, options=told)
    assert lab.operations() == []
