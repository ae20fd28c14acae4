"""A daemon's service as Python calls: our dataclasses in and out, our errors raised.

Results' own modules are imported when there is one: they stand on half of the agent, which a client
needs no more of than that.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from datetime import UTC
from typing import TYPE_CHECKING, Any, Final, TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToDict
from google.protobuf.struct_pb2 import Struct

from agent.errors import AgentUnreachable
from agent.messages.events import event_from
from agent.messages.model import Action, CheckpointSpec, Event, RestoreSpec, State
from agent.messages.requests import (
    checkpoint_message,
    pod_message,
    request_from,
    restore_message,
)
from agent.pb.checkpoint_agent.v1 import actions_pb2 as events_pb
from agent.pb.checkpoint_agent.v1 import agent_pb2 as pb
from agent.pb.checkpoint_agent.v1 import inventory_pb2
from agent.pb.checkpoint_agent.v1.agent_pb2_grpc import AgentStub
from agent.report import Observer, Update
from agent.rpc.channel import Tls, open_channel, translated
from agent.rpc.status import error_of
from agent.targets import PodRef, RuncTarget

if TYPE_CHECKING:
    from agent.actions import Freeze, Thawed
    from agent.catalog import CheckpointSummary
    from agent.inspect import Inspection
    from agent.pb.checkpoint_agent.v1.agent_pb2_grpc import AgentAsyncStub
    from agent.verify import VerifyResult

# Seconds for calls that only look something up or write it down. Those that read a store, roll
# back or wait for an action take as long as they take: Ctrl-C ends them.
QUICK: Final = 30.0

T = TypeVar("T")


@asynccontextmanager
async def connect(address: str, tls: Tls) -> AsyncIterator[Client]:
    """A client of the daemon at ``unix:/PATH`` or ``HOST:PORT``.

    Raises:
        InvalidArgument: the address or a certificate cannot be used.
    """
    async with open_channel(address, tls) as channel:
        yield Client(address, AgentStub(channel))


class Client:
    """One daemon. Every method raises AgentUnreachable, and what the daemon itself raised."""

    def __init__(self, address: str, stub: AgentAsyncStub) -> None:
        self._address = address
        self._stub = stub

    async def checkpoint(self, spec: CheckpointSpec, observer: Observer) -> Event:
        """Take a checkpoint; returns its last event, which has the outcome.

        Cancelling this gives the checkpoint up, and returns when it is rolled back.
        """
        action_id = str(uuid.uuid4())
        call = pb.CheckpointCall(action_id=action_id, request=checkpoint_message(spec))
        return await self._see_through(action_id, self._begin(call), observer)

    async def restore(self, spec: RestoreSpec, observer: Observer) -> Event:
        """Restore a checkpoint; otherwise as :meth:`checkpoint`."""
        action_id = str(uuid.uuid4())
        call = pb.RestoreCall(action_id=action_id, request=restore_message(spec))
        return await self._see_through(action_id, self._begin(call), observer)

    async def actions(self, states: Sequence[State], limit: int) -> list[Action]:
        """The newest actions; of all states when none are given."""
        numbers = [events_pb.ActionEvent.State.Value(state.value) for state in states]
        request = pb.ListActionsRequest(states=numbers, limit=limit)
        with translated(self._address):
            answer = await self._stub.ListActions(request, timeout=QUICK)
        return [_action(message) for message in answer.actions]

    async def action(self, action_id: str) -> Action:
        """One action. Raises ActionNotFound."""
        with translated(self._address):
            return _action(
                await self._stub.GetAction(pb.ActionId(action_id=action_id), timeout=QUICK)
            )

    async def cancel(self, action_id: str) -> Action:
        """Give an action up; returns when everything is put back. Raises ActionNotFound."""
        with translated(self._address):
            return _action(await self._stub.CancelAction(pb.ActionId(action_id=action_id)))

    async def node(self) -> inventory_pb2.NodeInfo:
        """What the node is now."""
        with translated(self._address):
            return await self._stub.GetNodeInfo(pb.GetNodeInfoRequest(), timeout=QUICK)

    async def pods(self, namespace: str) -> list[inventory_pb2.Pod]:
        """The node's pods; of all namespaces for ""."""
        request = pb.ListPodsRequest(namespace=namespace)
        with translated(self._address):
            return list((await self._stub.ListPods(request, timeout=QUICK)).pods)

    async def freeze(self, target: PodRef | RuncTarget, seconds: float) -> Freeze:
        """Stop every task of it for so long at most."""
        request = pb.FreezeRequest()
        request.limit.CopyFrom(Duration(seconds=int(seconds), nanos=int(seconds % 1 * 1e9)))
        if isinstance(target, PodRef):
            request.pod.CopyFrom(pod_message(target))
        else:
            request.container.id = target.container
            request.container.runc_root = str(target.root)
        with translated(self._address):
            answer = await self._stub.Freeze(request, timeout=QUICK)
        from agent.actions import Freeze

        return Freeze(answer.freeze_id, answer.until.ToDatetime(UTC), tuple(answer.containers))

    async def thaw(self, freeze_id: str) -> Thawed:
        """Let it run again. Raises FreezeNotFound."""
        with translated(self._address):
            answer = await self._stub.Thaw(pb.ThawRequest(freeze_id=freeze_id), timeout=QUICK)
        from agent.actions import Thawed

        return Thawed(answer.frozen_seconds, answer.was_frozen)

    async def list_checkpoints(self, store: str) -> tuple[str, list[CheckpointSummary]]:
        """A store's URL and its checkpoints, newest first; the node's own store for ""."""
        with translated(self._address):
            answer = await self._stub.ListCheckpoints(pb.ListCheckpointsRequest(store=store))
        from agent.catalog import CheckpointSummary

        return answer.store, [_filled(CheckpointSummary, one) for one in answer.checkpoints]

    async def inspect(self, path: str) -> Inspection:
        """What a checkpoint holds."""
        with translated(self._address):
            answer = await self._stub.InspectCheckpoint(pb.CheckpointPath(path=path))
        from agent.inspect import Inspection

        return _filled(Inspection, answer.inspection)

    async def verify(self, path: str) -> VerifyResult:
        """Read a whole checkpoint back, on the daemon's side."""
        with translated(self._address):
            answer = await self._stub.VerifyCheckpoint(pb.CheckpointPath(path=path))
        from agent.verify import VerifyResult

        return VerifyResult(
            **{field.name: getattr(answer, field.name) for field in answer.DESCRIPTOR.fields}
        )

    async def delete(self, path: str) -> None:
        """Delete a checkpoint for good."""
        with translated(self._address):
            await self._stub.DeleteCheckpoint(pb.CheckpointPath(path=path))

    async def _begin(self, call: pb.CheckpointCall | pb.RestoreCall) -> None:
        with translated(self._address):
            if isinstance(call, pb.CheckpointCall):
                await self._stub.Checkpoint(call, timeout=QUICK)
            else:
                await self._stub.Restore(call, timeout=QUICK)

    async def _see_through(
        self, action_id: str, begin: Coroutine[Any, Any, None], observer: Observer
    ) -> Event:
        beginning = asyncio.ensure_future(begin)
        try:
            # Shielded: what is cancelled on its way may still arrive, after its own cancellation.
            await asyncio.shield(beginning)
            last = await self._watch(action_id, observer)
        except asyncio.CancelledError:
            last = await self._give_up(action_id, beginning)
            if last.failure is not None and last.failure.code == "cancelled":
                raise
        if last.failure is not None:
            raise error_of(last.failure)
        return last

    async def _watch(self, action_id: str, observer: Observer) -> Event:
        last: Event | None = None
        with translated(self._address):
            async for message in self._stub.WatchAction(pb.ActionId(action_id=action_id)):
                last = event_from(message)
                if not last.state.is_terminal:
                    observer(_update(last))
        if last is None or not last.state.is_terminal:
            raise AgentUnreachable(self._address, f"it stopped telling of action {action_id}")
        return last

    async def _give_up(self, action_id: str, beginning: asyncio.Future[None]) -> Event:
        """Its last event, once everything is put back. Raises CancelledError if it never began."""
        await asyncio.wait((beginning,))
        if beginning.exception() is not None:
            raise asyncio.CancelledError
        return (await self.cancel(action_id)).event


def _action(message: pb.Action) -> Action:
    return Action(
        request=request_from(message.request),
        accepted=message.accepted.ToDatetime(UTC),
        event=event_from(message.last_event),
    )


def _update(event: Event) -> Update:
    told = event.progress
    if told is None:
        return Update(event.state.value)
    return Update(told.phase, told.bytes_raw, told.bytes_stored, told.bytes_total or None)


def _filled(kind: type[T], message: Struct) -> T:
    """A dataclass from its fields; whole numbers, which Struct does not know, are whole again."""
    from pydantic import TypeAdapter

    return TypeAdapter(kind).validate_python(MessageToDict(message))
