"""Asking for a checkpoint, and what became of it."""

from __future__ import annotations

import uuid
from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import PlainTextResponse

from agent.api.answers import is_uuid, why
from agent.api.asked import as_sent, checkpoint_spec, pod_of, text
from agent.api.auth import Checkpointer, Reader
from agent.api.database import actions as table
from agent.api.database.connection import now
from agent.api.database.tables import ActionRow
from agent.api.errors import NoCheckpointOfName, UnknownAction
from agent.api.intake import Key, take
from agent.api.parts import Here
from agent.api.placement import names_of, node_of
from agent.api.routes.answering import IdempotencyKey, refusals, success
from agent.api.schemas import CheckpointOperationStatus, CheckpointPod, StatusResponse
from agent.errors import InvalidArgument
from agent.messages.model import ActionRequest, State
from agent.targets import PodRef

router = APIRouter(prefix="/v2/checkpoint", tags=["Actions"])


@router.post(
    "/pod",
    operation_id="checkpoint_pod",
    summary="Checkpoint pod",
    response_class=PlainTextResponse,
    responses=success("Returns the ID for the task")
    | refusals(
        s400="Invalid request parameters",
        s404="Failed to find checkpointable resource",
        s408="The body did not come to its end",
        s413="The body is too big",
        s500="Failed to create checkpoint or connect to eventstream",
    ),
)
async def checkpoint_pod(
    body: CheckpointPod, parts: Here, caller: Checkpointer, idempotency_key: IdempotencyKey = None
) -> PlainTextResponse:
    """The pod's node freezes all its containers, takes their state and lets them run again."""
    pod = pod_of(body)
    cluster = text(body.cluster_id, "cluster_id", 128) or None
    # Whatever else is wrong, before anybody is asked where the pod is.
    checkpoint_spec(body, pod)
    asked = dict(as_sent(body))

    async def prepare() -> tuple[ActionRow, ActionRequest]:
        found = node_of(parts.control, pod, cluster)
        ref = PodRef(found.pod.ref.uid, found.pod.ref.namespace, found.pod.ref.name)
        request = ActionRequest(str(uuid.uuid4()), checkpoint_spec(body, ref))
        time = now()
        row = ActionRow(
            action_id=request.action_id,
            type=request.type.value,
            state=State.INITIALIZED.value,
            cluster=found.cluster,
            node=found.node,
            created=time,
            updated=time,
            pod_uid=ref.uid,
            pod_namespace=ref.namespace,
            pod_name=ref.name,
            kind=body.kind.value,
            reason=body.reason.value,
            request=asked,
            names=names_of(found.pod),
        )
        return row, request

    def again(row: ActionRow) -> ActionRequest:
        ref = PodRef(row.pod_uid, row.pod_namespace, row.pod_name)
        return ActionRequest(row.action_id, checkpoint_spec(body, ref))

    key = Key.of(caller, idempotency_key, ["checkpoint", asked])
    taken = await take(parts, key, prepare, again)
    return answer(taken.action_id, replayed=taken.replayed)


def answer(action_id: str, *, replayed: bool) -> PlainTextResponse:
    """An action's id, and whether an earlier request began it."""
    headers = {"Idempotency-Replayed": "true"} if replayed else None
    return PlainTextResponse(action_id, headers=headers)


@router.get(
    "/status/{action_id}",
    operation_id="get_checkpoint_status",
    summary="Get status of checkpoint action",
    response_model=StatusResponse,
    responses=success("Returns the current status of the checkpoint operation")
    | refusals(s404="Action ID not found", s500="Failed to retrieve status from database"),
)
async def get_checkpoint_status(action_id: str, parts: Here, caller: Reader) -> StatusResponse:
    """Returns the current status of a checkpoint action; with `error`, the reason as well."""
    row = None
    if is_uuid(action_id):
        async with parts.database.read() as session:
            row = await table.get(session, action_id)
    if row is None:
        raise UnknownAction(action_id)
    return StatusResponse(status=CheckpointOperationStatus(row.state), details=why(row))


@router.get(
    "/path",
    operation_id="get_latest_checkpoint_for_container_in_action",
    summary="Get path of latest checkpoint",
    response_class=PlainTextResponse,
    responses=success("Returns the restore path")
    | refusals(
        s400="Failed to get action for request",
        s500="Failed to connect/fetch from jobs table from database",
    ),
)
async def get_latest_checkpoint(
    parts: Here,
    caller: Reader,
    name: Annotated[
        str | None,
        Query(description="CHECKPOINT_NAME of a container, else NAMESPACE/POD/CONTAINER"),
    ] = None,
) -> PlainTextResponse:
    """Returns the path of the latest successful checkpoint for a given checkpoint name."""
    wanted = text(name, "name", 1024)
    if not wanted:
        raise InvalidArgument("name", "is missing")
    async with parts.database.read() as session:
        path = await table.latest_path(session, wanted)
    if path is None:
        raise NoCheckpointOfName(wanted)
    return PlainTextResponse(path)
