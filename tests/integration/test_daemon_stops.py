"""The daemon ends in the middle of a checkpoint, in order or not: the container counts on."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

import psutil
import pytest

from agent.messages.model import Action, State
from agent.pb.checkpoint_agent.v1 import actions_pb2, agent_pb2
from agent.pb.checkpoint_agent.v1.agent_pb2_grpc import AgentStub
from agent.rpc.channel import Tls, open_channel
from agent.rpc.client import Client
from bench.bundle import COUNTER, memory
from bench.reports import wait_until
from bench.runc import Container
from tests.cli_process import run_cli
from tests.daemons import Daemon, Tables, daemon_in
from tests.fakes.hooked_criu import HookedCriu
from tests.integration.aftermath import assert_unharmed, is_frozen
from tests.integration.lab import Lab
from tests.integration.trees import processes

if TYPE_CHECKING:
    # In the stub files only.
    from agent.pb.checkpoint_agent.v1.agent_pb2_grpc import AgentAsyncStub

pytestmark = [pytest.mark.root, pytest.mark.criu]

ACTION = "a-1"


@contextmanager
def daemon_of(
    lab: Lab, *, stop_seconds: float, criu: HookedCriu | None = None, more: Tables | None = None
) -> Iterator[Daemon]:
    """A daemon in the lab, started and ready."""
    tables: Tables = {
        "": {"stop_seconds": stop_seconds},
        "pods": {"runc_roots": [str(lab.runc.path)]},
        **(more or {}),
    }
    env = {} if criu is None else {"CHECKPOINT_AGENT_CRIU": str(criu.program)}
    with daemon_in(lab.directory, tables, env) as daemon:
        daemon.start()
        daemon.wait_ready()
        yield daemon


@asynccontextmanager
async def calls(daemon: Daemon) -> AsyncIterator[tuple[AgentAsyncStub, Client]]:
    """The daemon's service, as stub and as client."""
    address = f"unix:{daemon.socket}"
    async with open_channel(address, Tls()) as channel:
        stub = AgentStub(channel)
        yield stub, Client(address, stub)


async def begin(daemon: Daemon, container: Container) -> None:
    """Have a checkpoint taken; returns when the daemon has taken it on."""
    target = actions_pb2.ContainerRef(id=container.id, runc_root=str(container.runc.path))
    request = actions_pb2.CheckpointRequest(container=target)
    async with calls(daemon) as (stub, _):
        await stub.Checkpoint(agent_pb2.CheckpointCall(action_id=ACTION, request=request))


async def outcome(daemon: Daemon) -> Action:
    """What has become of it, once it is terminal."""
    async with calls(daemon) as (_, client), asyncio.timeout(50):
        while not (action := await client.action(ACTION)).state.is_terminal:
            await asyncio.sleep(0.05)
        return action


def started(lab: Lab) -> Container:
    """A container that counts and holds memory."""
    return lab.runc.start(lab.runc.build(COUNTER, memory(8)))


def nothing_under_way(lab: Lab) -> bool:
    """Whether no operation has left anything."""
    return not lab.operations() and not processes(str(lab.state_dir))


async def test_sigterm_lets_a_checkpoint_finish(lab: Lab) -> None:
    container = started(lab)
    criu, _ = lab.hook("post-dump")
    with daemon_of(lab, stop_seconds=50, criu=criu) as daemon:
        await begin(daemon, container)
        wait_until(criu.reached, "the hook being reached")
        daemon.signal(signal.SIGTERM)
        daemon.wait_told("STOPPING=1")
        criu.release()
        assert daemon.wait() == 0
        assert_unharmed(container)
        assert nothing_under_way(lab)
        daemon.start()
        daemon.wait_ready()
        action = await outcome(daemon)
    assert action.state is State.READY
    assert action.event.checkpoint is not None
    assert run_cli("verify", action.event.checkpoint.path).returncode == 0


async def test_sigterm_rolls_back_what_takes_too_long(lab: Lab) -> None:
    container = started(lab)
    criu, _ = lab.hook("post-dump")
    with daemon_of(lab, stop_seconds=0.1, criu=criu) as daemon:
        await begin(daemon, container)
        wait_until(criu.reached, "the hook being reached")
        daemon.signal(signal.SIGTERM)
        daemon.wait_told("STOPPING=1")
        wait_until(lambda: bool(daemon.lines("rolling back what still runs")), "the rollback")
        criu.release()
        assert daemon.wait() == 0
        assert_unharmed(container)
        assert nothing_under_way(lab)
        daemon.start()
        daemon.wait_ready()
        action = await outcome(daemon)
    assert action.event.failure is not None
    assert action.event.failure.code == "agent_stopping"


def hurries(daemon: Daemon) -> bool:
    """Signal again, and whether it has understood; at once, it would be taken for the same."""
    daemon.signal(signal.SIGTERM)
    return bool(daemon.lines("hurrying; still nothing stays frozen"))


async def test_a_second_signal_does_not_wait(lab: Lab) -> None:
    container = started(lab)
    criu, _ = lab.hook("post-dump")
    # Longer than any test may take: if it waited, this would fail.
    with daemon_of(lab, stop_seconds=3600, criu=criu) as daemon:
        await begin(daemon, container)
        wait_until(criu.reached, "the hook being reached")
        daemon.signal(signal.SIGTERM)
        daemon.wait_told("STOPPING=1")
        wait_until(lambda: hurries(daemon), "its hurry")
        criu.release()
        assert daemon.wait() == 0
        assert_unharmed(container)
        assert nothing_under_way(lab)


@pytest.mark.parametrize("thaw", ["ExecStopPost", "next start"])
async def test_after_kill_9_it_runs_and_the_action_is_reported(lab: Lab, thaw: str) -> None:
    container = started(lab)
    criu, _ = lab.hook("post-dump")
    with daemon_of(lab, stop_seconds=1, criu=criu) as daemon:
        await begin(daemon, container)
        wait_until(criu.reached, "the hook being reached")
        daemon.kill()
        criu.release()
        if thaw == "ExecStopPost":
            done = run_cli("thaw", "--all", "--state-dir", str(lab.state_dir))
            assert done.returncode == 0, done.stderr
            assert_unharmed(container)
        daemon.start()
        daemon.wait_ready()
        action = await outcome(daemon)
        assert action.event.failure is not None
        assert action.event.failure.code == "agent_restarted"
        wait_until(lambda: nothing_under_way(lab), "everything being cleaned up")
        assert_unharmed(container)
        assert daemon.stop() == 0


async def test_who_still_rolls_back_is_cleaned_up_after_later(lab: Lab) -> None:
    container = started(lab)
    criu, _ = lab.hook("post-dump")
    with daemon_of(lab, stop_seconds=1, criu=criu) as daemon:
        await begin(daemon, container)
        wait_until(criu.reached, "the hook being reached")
        daemon.kill()
        daemon.start()
        daemon.wait_ready()
        # CRIU has not ended, and its working directory is its own until it has.
        assert lab.operations()
        criu.release()
        wait_until(lambda: nothing_under_way(lab), "everything being cleaned up")
        assert_unharmed(container)
        assert daemon.stop() == 0


async def freeze(daemon: Daemon, container: Container) -> None:
    """Have it frozen for longer than any test takes."""
    request = agent_pb2.FreezeRequest()
    request.container.id = container.id
    request.container.runc_root = str(container.runc.path)
    request.limit.seconds = 250
    async with calls(daemon) as (stub, _):
        await stub.Freeze(request)
    assert is_frozen(container)


async def test_a_freeze_ends_with_the_daemon(lab: Lab) -> None:
    container = started(lab)
    with daemon_of(lab, stop_seconds=1) as daemon:
        await freeze(daemon, container)
        assert daemon.stop() == 0
        assert_unharmed(container)


@pytest.mark.parametrize("thaw", ["ExecStopPost", "next start"])
async def test_a_freeze_does_not_outlive_a_killed_daemon(lab: Lab, thaw: str) -> None:
    container = started(lab)
    with daemon_of(lab, stop_seconds=1) as daemon:
        await freeze(daemon, container)
        daemon.kill()
        assert is_frozen(container)
        if thaw == "ExecStopPost":
            done = run_cli("thaw", "--all", "--state-dir", str(lab.state_dir))
            assert done.returncode == 0, done.stderr
        else:
            daemon.start()
            daemon.wait_ready()
        assert_unharmed(container)


async def test_shared_staging_memory_is_held_and_used(lab: Lab) -> None:
    container = started(lab)
    staging: Tables = {"checkpoint": {"staging_bytes": 64 << 20}}
    with daemon_of(lab, stop_seconds=1, more=staging) as daemon:
        assert daemon.process is not None
        assert psutil.Process(daemon.process.pid).memory_info().rss > 64 << 20
        await begin(daemon, container)
        action = await outcome(daemon)
        assert action.state is State.READY, action.event.failure
        assert daemon.stop() == 0
    assert_unharmed(container)
