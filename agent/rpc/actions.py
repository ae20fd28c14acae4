"""The calls about actions: begin, watch, look up, give up."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator
from typing import Any, Final

from agent.actions import Executor
from agent.errors import ActionNotFound, InvalidArgument
from agent.logs import get_logger
from agent.messages.events import event_message, timestamp
from agent.messages.model import Action, ActionRequest, Event, State
from agent.messages.requests import check_action_id, checkpoint_from, message_of, restore_from
from agent.pb.checkpoint_agent.v1 import actions_pb2 as events_pb
from agent.pb.checkpoint_agent.v1 import agent_pb2 as pb
from agent.rpc.background import Background

DEFAULT_LIMIT: Final = 100
# An action is a few KiB: what is more than this does not fit into a client's default of 4 MiB.
MAX_LIMIT: Final = 1000

_log = get_logger(__name__)


class ActionCalls:
    """Checkpoint, Restore, WatchAction, GetAction, ListActions, CancelAction."""

    def __init__(
        self, executor: Executor, background: Background, *, cluster: str, node: str
    ) -> None:
        """``cluster`` and ``node`` are for the events, as on the event stream."""
        self._executor = executor
        self._background = background
        self._cluster = cluster
        self._node = node

    async def Checkpoint(self, request: pb.CheckpointCall, _context: object) -> pb.Action:
        """Begin a checkpoint, and with `wait` see it through."""
        spec = checkpoint_from(request.request)
        early = {State.CHECKPOINT_CREATED} if spec.overrides.asynchronous else set()
        wanted = ActionRequest(_chosen(request.action_id), spec)
        return await self._begin(wanted, early if request.wait else None)

    async def Restore(self, request: pb.RestoreCall, _context: object) -> pb.Action:
        """Begin a restore, and with `wait` see it through."""
        wanted = ActionRequest(_chosen(request.action_id), restore_from(request.request))
        return await self._begin(wanted, set() if request.wait else None)

    async def WatchAction(
        self, request: pb.ActionId, _context: object
    ) -> AsyncIterator[events_pb.ActionEvent]:
        """Every event of an action from now on, the latest one first."""
        events = self._executor.subscribe(check_action_id(request.action_id))
        async with contextlib.aclosing(events):
            async for event in events:
                yield self._event(event)

    async def GetAction(self, request: pb.ActionId, _context: object) -> pb.Action:
        """One action as it is now."""
        return self._message(await self._executor.get(check_action_id(request.action_id)))

    async def ListActions(
        self, request: pb.ListActionsRequest, _context: object
    ) -> pb.ListActionsResponse:
        """The newest actions."""
        states = [_state(number) for number in request.states]
        limit = min(request.limit or DEFAULT_LIMIT, MAX_LIMIT)
        found = await self._executor.list(states, limit)
        return pb.ListActionsResponse(actions=[self._message(action) for action in found])

    async def CancelAction(self, request: pb.ActionId, _context: object) -> pb.Action:
        """Give an action up; returns when everything is put back."""
        action_id = check_action_id(request.action_id)
        _log.info("cancelling", action_id=action_id)
        # Shielded: who asks for it and goes away still wants it.
        cancelling = asyncio.ensure_future(self._executor.cancel(action_id))
        try:
            return self._message(await asyncio.shield(cancelling))
        except asyncio.CancelledError:
            self._background.start(_ended(cancelling))
            raise

    async def _begin(self, request: ActionRequest, until: set[State] | None) -> pb.Action:
        """Submit; unless ``until`` is None, wait for one of these states or a terminal one."""
        is_ours = until is not None and not await self._is_known(request.action_id)
        submitting = asyncio.ensure_future(self._executor.submit(request))
        try:
            action = await asyncio.shield(submitting)
            _log.info("accepted", action_id=request.action_id, type=request.type.value)
            if until is not None:
                terminal = {state for state in State if state.is_terminal}
                action = await self._executor.wait(request.action_id, until | terminal)
        except asyncio.CancelledError:
            # Another's action, or the agent being stopped: that is not ours to give up.
            if is_ours and not self._background.is_stopping:
                self._background.start(self._give_up(submitting))
            else:
                self._background.start(_ended(submitting))
            raise
        return self._message(action)

    async def _is_known(self, action_id: str) -> bool:
        try:
            await self._executor.get(action_id)
        except ActionNotFound:
            return False
        return True

    async def _give_up(self, submitting: asyncio.Future[Action]) -> None:
        action = await submitting
        _log.info("its client has gone: giving it up", action_id=action.action_id)
        await self._executor.cancel(action.action_id)

    def _message(self, action: Action) -> pb.Action:
        return pb.Action(
            action_id=action.action_id,
            type=events_pb.ActionType.Value(action.request.type.value),
            state=events_pb.ActionEvent.State.Value(action.state.value),
            accepted=timestamp(action.accepted),
            updated=timestamp(action.event.time),
            request=message_of(action.request),
            last_event=self._event(action.event),
        )

    def _event(self, event: Event) -> events_pb.ActionEvent:
        return event_message(event, cluster=self._cluster, node=self._node)


async def _ended(work: asyncio.Future[Any]) -> None:
    await work


def _chosen(action_id: str) -> str:
    return check_action_id(action_id) if action_id else str(uuid.uuid4())


def _state(number: int) -> State:
    try:
        return State(events_pb.ActionEvent.State.Name(number))  # type: ignore[arg-type]
    except ValueError as error:
        raise InvalidArgument("states", f"{number} is no state of an action") from error
