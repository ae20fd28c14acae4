"""The calls about actions: a real server on a real socket, a plain client, the real executor."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest
from grpc import aio

from agent.messages.model import State
from agent.pb.checkpoint_agent.v1 import actions_pb2 as events_pb
from agent.pb.checkpoint_agent.v1 import agent_pb2 as pb
from tests.rpc_servers import Running, running, settings_in, short_directory
from tests.waiting import PATIENCE, eventually_async

if TYPE_CHECKING:
    from agent.pb.checkpoint_agent.v1.agent_pb2_grpc import AgentAsyncStub

Event = events_pb.ActionEvent


@pytest.fixture
async def agent() -> AsyncIterator[Running]:
    """A server in front of an executor that holds what is not called ``quick``."""
    async with short_directory() as directory, running(settings_in(directory)) as made:
        yield made


@pytest.fixture
async def stub(agent: Running) -> AsyncIterator[AgentAsyncStub]:
    """A client of it."""
    async with agent.stub() as made:
        yield made


def of(container: str, action_id: str = "", *, wait: bool = False) -> pb.CheckpointCall:
    """A call for a checkpoint of a container."""
    request = events_pb.CheckpointRequest(container=events_pb.ContainerRef(id=container))
    return pb.CheckpointCall(action_id=action_id, request=request, wait=wait)


async def test_waiting_for_a_checkpoint_answers_with_its_outcome(stub: AgentAsyncStub) -> None:
    call = of("quick", wait=True)
    call.request.name = "nightly"
    action = await stub.Checkpoint(call)
    assert action.state == Event.ready
    assert action.type == events_pb.checkpoint_pod
    assert action.request.checkpoint.container.id == "quick"
    outcome = action.last_event.checkpoint
    assert (outcome.name, outcome.bytes_stored, outcome.frozen_seconds) == ("nightly", 700, 0.25)
    assert (action.last_event.cluster, action.last_event.node) == ("test", "node")


async def test_waiting_for_a_restore_answers_with_its_members(stub: AgentAsyncStub) -> None:
    request = events_pb.RestoreRequest(path="/quick/one")
    action = await stub.Restore(pb.RestoreCall(request=request, wait=True))
    assert action.state == Event.ready
    assert [one.pid for one in action.last_event.restore.members] == [4711]


async def test_waiting_for_an_asynchronous_one_ends_when_it_is_captured(
    agent: Running, stub: AgentAsyncStub
) -> None:
    call = of("slow", wait=True)
    call.request.overrides.asynchronous = True
    action = await stub.Checkpoint(call)
    assert action.state == Event.checkpoint_created
    agent.worker.release.set()
    await agent.becomes(action.action_id, State.READY)


async def test_an_error_is_an_answer_of_its_own(stub: AgentAsyncStub) -> None:
    action = await stub.Checkpoint(of("missing", wait=True))
    assert action.state == Event.error
    assert action.last_event.failure.code == "target_not_found"


async def test_watching_tells_every_state_in_order_and_ends(
    agent: Running, stub: AgentAsyncStub
) -> None:
    begun = await stub.Checkpoint(of("slow", "mine"))
    assert (begun.action_id, begun.last_event.state) == ("mine", begun.state)
    seen: list[Event] = []
    async for event in stub.WatchAction(pb.ActionId(action_id="mine")):
        seen.append(event)
        agent.worker.release.set()
    states = [event.state for event in seen]
    assert states == sorted(states)
    assert states[-2:] == [Event.checkpoint_created, Event.ready]
    numbers = [event.sequence for event in seen]
    assert numbers == sorted(set(numbers))


async def test_watching_what_has_ended_tells_its_end(stub: AgentAsyncStub) -> None:
    action = await stub.Checkpoint(of("quick", wait=True))
    watch = stub.WatchAction(pb.ActionId(action_id=action.action_id))
    assert [event.state async for event in watch] == [Event.ready]


async def test_who_stops_watching_changes_nothing(agent: Running, stub: AgentAsyncStub) -> None:
    await stub.Checkpoint(of("slow", "mine"))
    watch = stub.WatchAction(pb.ActionId(action_id="mine"))
    seen = []
    async for event in watch:
        seen.append(event.action_id)
        watch.cancel()
        break
    assert seen == ["mine"]
    agent.worker.release.set()
    await agent.becomes("mine", State.READY)


@pytest.mark.parametrize("call", ["GetAction", "CancelAction", "WatchAction"])
async def test_unknown_and_impossible_ids(stub: AgentAsyncStub, call: str) -> None:
    for action_id, code in (
        ("nobody", grpc.StatusCode.NOT_FOUND),
        ("a b", grpc.StatusCode.INVALID_ARGUMENT),
        ("", grpc.StatusCode.INVALID_ARGUMENT),
    ):
        answer = getattr(stub, call)(pb.ActionId(action_id=action_id))
        with pytest.raises(aio.AioRpcError) as error:
            await (answer.read() if call == "WatchAction" else answer)
        assert error.value.code() is code


async def test_listing_is_newest_first_and_limited(agent: Running, stub: AgentAsyncStub) -> None:
    for number in range(3):
        await stub.Checkpoint(of("quick", f"done-{number}", wait=True))
    await stub.Checkpoint(of("slow", "held"))
    await eventually_async(lambda: "held" in agent.worker.begun)
    everything = await stub.ListActions(pb.ListActionsRequest())
    assert [one.action_id for one in everything.actions] == ["held", "done-2", "done-1", "done-0"]
    two = await stub.ListActions(pb.ListActionsRequest(limit=2, states=[Event.ready]))
    assert [one.action_id for one in two.actions] == ["done-2", "done-1"]
    # More than there may be is answered with as many as there may be.
    assert len((await stub.ListActions(pb.ListActionsRequest(limit=4_000_000))).actions) == 4
    with pytest.raises(aio.AioRpcError, match="states") as error:
        await stub.ListActions(pb.ListActionsRequest(states=[Event.not_found]))
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_deadline_in_the_middle_gives_the_action_up(
    agent: Running, stub: AgentAsyncStub
) -> None:
    # A second is a thousand times what it takes to begin, but a machine may stand still for longer.
    for action_id, seconds in (("mine", 1.0), ("another", PATIENCE / 2)):
        with pytest.raises(aio.AioRpcError) as error:
            await stub.Checkpoint(of(f"slow-{action_id}", action_id, wait=True), timeout=seconds)
        assert error.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        if agent.worker.begun:
            break
    await rolled_back(agent, action_id)


async def test_a_client_that_cancels_gives_the_action_up(
    agent: Running, stub: AgentAsyncStub
) -> None:
    waiting = stub.Checkpoint(of("slow", "mine", wait=True))
    await eventually_async(lambda: agent.worker.begun)
    waiting.cancel()
    await rolled_back(agent)


async def test_a_client_that_is_gone_gives_the_action_up(agent: Running) -> None:
    async with agent.stub() as other:
        request = events_pb.RestoreRequest(path="/slow/one")
        waiting = other.Restore(pb.RestoreCall(action_id="mine", request=request, wait=True))
        await eventually_async(lambda: agent.worker.begun)
    assert waiting.cancelled()
    await rolled_back(agent)


async def rolled_back(agent: Running, action_id: str = "mine") -> None:
    """The only action is being put back, and is over when that is done, not before."""
    await eventually_async(lambda: agent.worker.rolling_back == [action_id])
    assert not (await agent.executor.get(action_id)).state.is_terminal
    agent.worker.release.set()
    await agent.becomes(action_id, State.ERROR)
    failure = (await agent.executor.get(action_id)).event.failure
    assert failure is not None
    assert failure.code == "cancelled"
    assert agent.worker.rolled_back == [action_id]


async def test_whoever_joins_in_waiting_does_not_give_up_anothers_action(
    agent: Running, stub: AgentAsyncStub
) -> None:
    first = stub.Checkpoint(of("slow", "mine", wait=True))
    await eventually_async(lambda: agent.worker.begun)
    second = stub.Checkpoint(of("slow", "mine", wait=True), timeout=0.3)
    with pytest.raises(aio.AioRpcError) as error:
        await second
    assert error.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    agent.worker.release.set()
    assert (await first).state == Event.ready
    assert agent.worker.begun == ["mine"]


async def test_cancelling_returns_when_everything_is_put_back(
    agent: Running, stub: AgentAsyncStub
) -> None:
    await stub.Checkpoint(of("slow", "mine"))
    await eventually_async(lambda: agent.worker.begun)
    cancelling = asyncio.ensure_future(_cancel(stub, "mine"))
    await eventually_async(lambda: agent.worker.rolling_back)
    assert not cancelling.done()
    agent.worker.release.set()
    action = await cancelling
    assert (action.state, action.last_event.failure.code) == (Event.error, "cancelled")
    assert (await _cancel(stub, "mine")).state == Event.error


async def test_who_has_asked_to_cancel_need_not_wait(agent: Running, stub: AgentAsyncStub) -> None:
    await stub.Checkpoint(of("slow", "mine"))
    await eventually_async(lambda: agent.worker.begun)
    cancelling = stub.CancelAction(pb.ActionId(action_id="mine"))
    await eventually_async(lambda: agent.worker.rolling_back)
    cancelling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelling
    await rolled_back(agent)


async def _cancel(stub: AgentAsyncStub, action_id: str) -> pb.Action:
    return await stub.CancelAction(pb.ActionId(action_id=action_id))


async def test_an_id_is_one_action(stub: AgentAsyncStub) -> None:
    first = await stub.Checkpoint(of("quick", "mine", wait=True))
    again = await stub.Checkpoint(of("quick", "mine", wait=True))
    assert again == first
    with pytest.raises(aio.AioRpcError) as error:
        await stub.Checkpoint(of("quick-two", "mine"))
    assert error.value.code() is grpc.StatusCode.ALREADY_EXISTS


async def test_a_full_queue_refuses(agent: Running, stub: AgentAsyncStub) -> None:
    # Two run, and those of one container wait for each other: five wait then.
    limit = agent.settings.checkpoint.queue_limit
    for number in range(1 + limit):
        await stub.Checkpoint(of("slow", f"one-{number}"))
        await eventually_async(lambda: agent.worker.begun)
    with pytest.raises(aio.AioRpcError) as error:
        await stub.Checkpoint(of("slow", "one-more"))
    assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_who_waits_while_the_agent_stops_is_told(
    agent: Running, stub: AgentAsyncStub
) -> None:
    running_one = stub.Checkpoint(of("slow", "running", wait=True))
    await eventually_async(lambda: agent.worker.begun)
    queued = stub.Checkpoint(of("slow", "queued", wait=True))
    seen: list[Event] = []
    watching = asyncio.ensure_future(_watch(stub, "running", seen))
    await eventually_async(lambda: seen)
    stopping = asyncio.ensure_future(agent.executor.stop(0))
    await eventually_async(lambda: agent.worker.rolling_back)
    agent.worker.release.set()
    await stopping
    assert (await running_one).last_event.failure.code == "agent_stopping"
    with pytest.raises(aio.AioRpcError) as error:
        await queued
    assert error.value.code() is grpc.StatusCode.UNAVAILABLE
    with pytest.raises(aio.AioRpcError) as refused:
        await stub.Checkpoint(of("quick"))
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    await watching
    assert seen[-1].state == Event.error
    # What has not begun is for the next start, and was not given up with those who waited for it.
    assert (await agent.executor.get("queued")).state is State.INITIALIZED


async def _watch(stub: AgentAsyncStub, action_id: str, seen: list[Event]) -> None:
    async for event in stub.WatchAction(pb.ActionId(action_id=action_id)):
        seen.append(event)


async def test_cutting_off_clients_does_not_give_up_their_actions(tmp_path: Path) -> None:
    async with running(settings_in(tmp_path)) as agent, agent.stub() as stub:
        waiting = stub.Checkpoint(of("slow", "mine", wait=True))
        await eventually_async(lambda: agent.worker.begun)
        await agent.server.stop(0)
        with pytest.raises(aio.AioRpcError):
            await waiting
        assert agent.worker.rolling_back == []
        agent.worker.release.set()
        await agent.becomes("mine", State.READY)
