"""Actions as they are: lists, one, live, and what the cluster adds to them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Annotated, Final
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Query, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent
from starlette.requests import Request
from starlette.responses import PlainTextResponse

from agent.api.answers import action, detail, is_uuid
from agent.api.asked import storable, text
from agent.api.auth import Checkpointer, Reader
from agent.api.database import actions as table
from agent.api.errors import NoActionOfPod, UnknownAction
from agent.api.parts import Here, Parts
from agent.api.routes.answering import refusals, success
from agent.api.schemas import Action, ActionDetail, CheckpointStatusWithPodSpec
from agent.errors import InvalidArgument
from agent.messages.model import ActionType, State

router = APIRouter(prefix="/v2/actions", tags=["Actions"])

# Seconds between two looks at an action that somebody watches: twice as often as a node reports.
_LOOK: Final = 0.25

# Values of `type`: the two that there are, and checkpoints that were taken for their regularity.
_HEARTBEAT: Final = "heartbeat"
_TYPES: Final = (*(each.value for each in ActionType), _HEARTBEAT)


@router.get(
    "",
    operation_id="list",
    summary="List actions",
    response_model=list[Action],
    responses=success("Returns the actions with status")
    | refusals(s400="Failed list", s500="Failed to connect/fetch from jobs table from database"),
)
async def list_actions(
    request: Request,
    response: Response,
    parts: Here,
    caller: Reader,
    type: Annotated[str | None, Query(description="checkpoint_pod, restore_pod, heartbeat")] = None,
    state: Annotated[str | None, Query(description="Only in this state")] = None,
    node: Annotated[str | None, Query(description="Only of this node")] = None,
    namespace: Annotated[str | None, Query(description="Only of pods of this namespace")] = None,
    pod: Annotated[str | None, Query(description="Only of pods whose name has this in it")] = None,
    limit: Annotated[int, Query(description="At most so many, 1 to 1000")] = 100,
    before: Annotated[str | None, Query(description="Only older ones than this action")] = None,
) -> list[Action]:
    """Newest first. When there are more, the header `Link` has the address of the next page."""
    if not 1 <= limit <= 1000:
        raise InvalidArgument("limit", f"{limit} is not from 1 to 1000")
    wanted = table.Wanted(
        type=_type(type),
        reason=_HEARTBEAT if type == _HEARTBEAT else "",
        state=_one_of(state, "state", tuple(State)),
        node=text(node, "node", 128),
        namespace=text(namespace, "namespace", 253),
        pod=text(pod, "pod", 253),
        before=_known_id(before),
        limit=limit + 1,
    )
    async with parts.database.read() as session:
        rows = await table.newest(session, wanted)
    if len(rows) > limit:
        query = dict(request.query_params) | {"before": rows[limit - 1].action_id}
        response.headers["Link"] = f'<{request.url.path}?{urlencode(query)}>; rel="next"'
    return [action(row) for row in rows[:limit]]


def _type(wanted: str | None) -> str:
    found = _one_of(wanted, "type", _TYPES)
    return ActionType.CHECKPOINT.value if found == _HEARTBEAT else found


def _one_of(value: str | None, field: str, values: tuple[str, ...]) -> str:
    if value and value not in values:
        raise InvalidArgument(field, f"is none of {', '.join(values)}")
    return value or ""


def _known_id(action_id: str | None) -> str:
    if action_id and not is_uuid(action_id):
        raise InvalidArgument("before", "is no action's id")
    return action_id or ""


@router.get(
    "/from_pod/{id}",
    operation_id="latest_pod_action_id",
    summary="Get latest action belonging to a pod",
    response_class=PlainTextResponse,
    responses=success("The action_id of the given pod_id has been fetched successfully")
    | refusals(
        s404="Failed to get action_id for the given pod_id",
        s500="Failed to connect/fetch from pods_to_actions table from database",
    ),
)
async def latest_pod_action_id(id: str, parts: Here, caller: Reader) -> PlainTextResponse:
    """The id is the pod's UID."""
    found = None
    if id.isprintable() and len(id) <= 128:
        async with parts.database.read() as session:
            found = await table.latest_of_pod(session, id)
    if found is None:
        raise NoActionOfPod(id)
    return PlainTextResponse(found)


@router.post(
    "/upload",
    operation_id="upload_podspec",
    summary="Upload pod spec",
    response_class=PlainTextResponse,
    responses=success("Success")
    | refusals(
        s400="Invalid request parameters",
        s404="Failed to get action_id within the db",
        s408="The body did not come to its end",
        s413="The body is too big",
        s500="Failed to connect/fetch from pods_to_actions table from database",
    ),
)
async def upload_podspec(
    body: CheckpointStatusWithPodSpec, parts: Here, caller: Checkpointer
) -> PlainTextResponse:
    """Keeps a pod's spec, metadata and claims with the action. `status` is the node's to report."""
    specs = {
        name: storable(getattr(body, name), name)
        for name in ("pod_spec", "pod_metadata_spec", "persistent_volume_claim")
    }
    pod_id = text(body.pod_id, "pod_id", 128)
    known = False
    if is_uuid(body.action_id):
        async with parts.database.write() as session:
            known = await table.upload(session, body.action_id, pod_id, specs)
    if not known:
        raise UnknownAction(body.action_id)
    return PlainTextResponse("stored")


@router.get(
    "/{action_id}",
    operation_id="get_action",
    summary="Get all of one action",
    response_model=ActionDetail,
    responses=refusals(s404="Action ID not found", s500="Failed to connect to the database"),
)
async def get_action(action_id: str, parts: Here, caller: Reader) -> ActionDetail:
    """With its phases, sizes, states, and what was uploaded."""
    return await _detail(parts, action_id)


async def _detail(parts: Parts, action_id: str) -> ActionDetail:
    row, steps = None, None
    if is_uuid(action_id):
        async with parts.database.read() as session:
            row = await table.get(session, action_id)
            steps = await table.transitions(session, action_id)
    if row is None or steps is None:
        raise UnknownAction(action_id)
    return detail(row, steps)


async def _exists(action_id: str, parts: Here, caller: Reader) -> None:
    """Before the first byte of a stream, while the status can still be another."""
    await _detail(parts, action_id)


@router.get(
    "/{action_id}/events",
    operation_id="watch_action",
    summary="Watch one action",
    response_class=EventSourceResponse,
    responses=refusals(s404="Action ID not found", s500="Failed to connect to the database"),
    dependencies=[Depends(_exists)],
)
async def watch_action(action_id: str, parts: Here) -> AsyncIterator[ServerSentEvent]:
    """The action as it is, and again whenever it has changed; ends with it."""
    shown: ActionDetail | None = None
    while not parts.ending.is_set():
        now = await _detail(parts, action_id)
        if now != shown:
            shown = now
            yield ServerSentEvent(data=now, event="action")
        if State(now.status).is_terminal:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LOOK):
                await parts.ending.wait()
