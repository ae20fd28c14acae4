"""Pods that restores wait for, and what was kept of pods that were checkpointed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from agent.api.database.actions import LIGHT, OPEN
from agent.api.database.connection import now
from agent.api.database.plain import fitting, plain
from agent.api.database.tables import ActionRow
from agent.messages.model import ActionType, State

# Earlier actions of a pod that are looked through for what was kept: most have nothing, because it
# was what an earlier one has.
_EARLIER: Final = 20


@dataclass(frozen=True, slots=True)
class Kept:
    """A pod's spec and metadata as they were uploaded or read; any JSON."""

    spec: Any
    metadata: Any = None


def waits_for_pod(row: ActionRow) -> bool:
    """Whether it is a restore that no node has taken yet, because its pod comes first."""
    restore = row.type == ActionType.RESTORE.value and row.restored_from is not None
    return restore and not row.node and row.state in OPEN


async def waiting(session: AsyncSession) -> Sequence[ActionRow]:
    """All of those, oldest first."""
    query = select(ActionRow).where(
        ActionRow.node == "",
        ActionRow.state.in_(OPEN),
        ActionRow.type == ActionType.RESTORE.value,
        ActionRow.restored_from.is_not(None),
    )
    query = query.options(LIGHT)
    return (await session.scalars(query.order_by(ActionRow.created, ActionRow.action_id))).all()


async def made(session: AsyncSession, action_id: str, uid: str) -> bool:
    """A restore has its pod; False if nobody wants this one.

    That is so if it was given up meanwhile, or has had another pod already. A node may be quicker
    than the answer of the cluster: what it has said of the action stands.
    """
    row = await session.get(ActionRow, action_id, with_for_update=True)
    if row is None or (row.state == State.ERROR.value and not row.node):
        return False
    uid = fitting(uid, ActionRow.pod_uid)
    if row.pod_uid not in ("", uid):
        return False
    if waits_for_pod(row):
        row.pod_uid = uid
        row.updated = max(now(), row.updated)
    return True


async def kept_of(session: AsyncSession, row: ActionRow) -> Kept | None:
    """What is known of a checkpoint's pod: with that action, else with an earlier one of it."""
    own = _kept(row)
    if own is not None or not row.pod_uid:
        return own
    query = select(ActionRow).where(
        ActionRow.pod_uid == row.pod_uid,
        ActionRow.created <= row.created,
        ActionRow.upload.is_not(None),
    )
    newest_first = query.order_by(ActionRow.created.desc(), ActionRow.action_id.desc())
    for earlier in await session.scalars(newest_first.limit(_EARLIER)):
        if (found := _kept(earlier)) is not None:
            return found
    return None


async def keep(session: AsyncSession, action_id: str, pod: Kept) -> None:
    """Keep a pod with an action, unless it is what the last one of it has. Uploads stay."""
    row = await session.get(ActionRow, action_id, with_for_update=True)
    if row is None:
        return
    pod = Kept(plain(pod.spec), plain(pod.metadata))
    if await kept_of(session, row) == pod:
        return
    row.upload = {"pod_spec": pod.spec, "pod_metadata_spec": pod.metadata} | (row.upload or {})


async def lacking(session: AsyncSession, cluster: str, since: int) -> Sequence[ActionRow]:
    """Checkpoints of a cluster's pods that began after ``since`` and have nothing kept."""
    query = select(ActionRow).where(
        ActionRow.type == ActionType.CHECKPOINT.value,
        ActionRow.created > since,
        ActionRow.cluster == cluster,
        ActionRow.pod_uid != "",
        ActionRow.upload.is_(None),
    )
    return (await session.scalars(query.order_by(ActionRow.created, ActionRow.action_id))).all()


def _kept(row: ActionRow) -> Kept | None:
    upload = row.upload or {}
    if upload.get("pod_spec") is None:
        return None
    return Kept(upload["pod_spec"], upload.get("pod_metadata_spec"))
