"""Asking for a restore."""

from __future__ import annotations

import uuid
from typing import Any

from fastapi import APIRouter
from starlette.responses import PlainTextResponse

from agent.api.answers import is_uuid
from agent.api.asked import as_sent, restore_spec, text
from agent.api.auth import Restorer
from agent.api.database import actions as table
from agent.api.database.connection import now
from agent.api.database.pods import Kept
from agent.api.database.tables import ActionRow
from agent.api.intake import Key, take
from agent.api.parts import Here, Parts
from agent.api.placement import node_for_restore
from agent.api.pod_request import pod_for
from agent.api.routes.answering import IdempotencyKey, refusals, success
from agent.api.routes.checkpoint import answer
from agent.api.schemas import RestorePod
from agent.errors import InvalidArgument
from agent.messages.model import ActionRequest, ActionType, RestoreSpec, State

router = APIRouter(prefix="/v2/restore", tags=["Actions"])


@router.post(
    "/pod",
    operation_id="restore_pod",
    summary="Restore pod",
    response_class=PlainTextResponse,
    responses=success("Returns the action ID for the new restore")
    | refusals(
        s400="Invalid action_id or request parameters",
        s408="The body did not come to its end",
        s413="The body is too big",
        s500="Failed to create restore or connect to eventstream",
    ),
)
async def restore_pod(
    body: RestorePod, parts: Here, caller: Restorer, idempotency_key: IdempotencyKey = None
) -> PlainTextResponse:
    """A node starts the containers of a `ready` checkpoint where they were.

    In a cluster that the API has access to, a new pod is created for that.
    """
    source = await _source(parts, body.action_id)
    cluster = text(body.cluster_id, "cluster_id", 128) or source.cluster
    spec = restore_spec(body, source.path or "")
    asked = dict(as_sent(body))

    async def prepare() -> tuple[ActionRow, ActionRequest | None]:
        request = ActionRequest(str(uuid.uuid4()), spec)
        row = _row(source, request, cluster, asked)
        kept = await _kept(parts, cluster, source)
        if kept is None:
            row.node = node_for_restore(parts.control, cluster, source.node, spec.reason)
            return row, request
        row.pod_name = _name_of_pod(source, kept, request.action_id, spec)
        # Stored is promised; the broker has no part in it.
        row.handed_over = True
        return row, None

    def again(row: ActionRow) -> ActionRequest:
        return ActionRequest(row.action_id, restore_spec(body, row.path or ""))

    key = Key.of(caller, idempotency_key, ["restore", asked])
    taken = await take(parts, key, prepare, again)
    if parts.pods is not None:
        parts.pods.wake()
    return answer(taken.action_id, replayed=taken.replayed)


async def _kept(parts: Parts, cluster: str, source: ActionRow) -> Kept | None:
    """What Kubernetes is to make a pod of; None where a node restores by itself.

    Raises:
        ClusterUnreachable, ClusterRefused, DatabaseFailed
    """
    if parts.pods is None or cluster != parts.pods.keeper.cluster:
        return None
    return await parts.pods.keeper.kept(source)


def _name_of_pod(source: ActionRow, kept: Kept, action_id: str, spec: RestoreSpec) -> str:
    """What the pod will be called. Raises InvalidArgument if none can be made."""
    if spec.overrides.criu_opts is not None:
        reason = "cannot be given for a pod that Kubernetes makes: its node's configuration holds"
        raise InvalidArgument("overrides.criu_opts", reason)
    name = spec.overrides.pod_name or ""
    pod = pod_for(source, kept, action_id=action_id, reason=spec.reason, name=name)
    return str(pod["metadata"]["name"])


def _row(
    source: ActionRow, request: ActionRequest, cluster: str, asked: dict[str, Any]
) -> ActionRow:
    time = now()
    return ActionRow(
        action_id=request.action_id,
        type=request.type.value,
        state=State.INITIALIZED.value,
        cluster=cluster,
        node="",
        created=time,
        updated=time,
        # By name only: what is restored gets a UID of its own, and the latest action of the old
        # one stays the checkpoint that can be restored again.
        pod_namespace=source.pod_namespace,
        pod_name=source.pod_name,
        reason=request.spec.reason,
        platform=source.platform,
        gpu=source.gpu,
        checkpoint_id=source.checkpoint_id,
        path=source.path,
        restored_from=source.action_id,
        request=asked,
    )


async def _source(parts: Parts, action_id: str) -> ActionRow:
    """The checkpoint to restore. Raises InvalidArgument if it is none that is ready."""
    row = None
    if is_uuid(action_id):
        async with parts.database.read() as session:
            row = await table.get(session, action_id)
    if row is None:
        raise InvalidArgument("action_id", "there is no such action")
    if row.type != ActionType.CHECKPOINT.value:
        raise InvalidArgument("action_id", "is not of a checkpoint")
    if row.state != State.READY.value or not row.path:
        raise InvalidArgument("action_id", f"the checkpoint is not ready: it is {row.state}")
    return row
