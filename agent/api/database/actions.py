"""Reading actions, and writing what the API itself knows of them; events: see projection.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import delete, or_, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import defer

from agent.api.database.connection import now
from agent.api.database.tables import UNHEARD, ActionRow, IdempotencyRow, NameRow, TransitionRow
from agent.messages.model import State

OPEN: Final = tuple(state.value for state in State if not state.is_terminal)

# For whoever reads many rows and shows or changes none of what was uploaded: megabytes of each.
LIGHT: Final = defer(ActionRow.upload, raiseload=True)

# Microseconds. A client that was cut off tries again within minutes; a day is for people.
_KEY_LIFE: Final = 86_400 * 1_000_000


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which actions to list; "" and None are any."""

    type: str = ""
    reason: str = ""
    state: str = ""
    node: str = ""
    namespace: str = ""
    pod: str = ""
    before: str = ""
    limit: int = 100


async def get(session: AsyncSession, action_id: str) -> ActionRow | None:
    """An action by its id."""
    return await session.get(ActionRow, action_id)


async def transitions(session: AsyncSession, action_id: str) -> Sequence[TransitionRow]:
    """The states that an action has come through, in order."""
    query = select(TransitionRow).where(TransitionRow.action_id == action_id)
    return (await session.scalars(query.order_by(TransitionRow.time, TransitionRow.sequence))).all()


async def newest(session: AsyncSession, wanted: Wanted) -> Sequence[ActionRow]:
    """Newest first."""
    query = select(ActionRow).options(LIGHT)
    given = {
        ActionRow.type: wanted.type,
        ActionRow.reason: wanted.reason,
        ActionRow.state: wanted.state,
        ActionRow.node: wanted.node,
        ActionRow.pod_namespace: wanted.namespace,
    }
    for column, value in given.items():
        if value:
            query = query.where(column == value)
    if wanted.pod:
        query = query.where(ActionRow.pod_name.contains(wanted.pod, autoescape=True))
    if wanted.before:
        last = await session.get(ActionRow, wanted.before)
        if last is None:
            return []
        here = tuple_(ActionRow.created, ActionRow.action_id)
        query = query.where(here < (last.created, last.action_id))
    query = query.order_by(ActionRow.created.desc(), ActionRow.action_id.desc())
    return (await session.scalars(query.limit(wanted.limit))).all()


async def latest_of_pod(session: AsyncSession, uid: str) -> str | None:
    """The id of the newest action of the pod with this UID."""
    query = select(ActionRow.action_id).where(ActionRow.pod_uid == uid)
    newest_first = query.order_by(ActionRow.created.desc(), ActionRow.action_id.desc())
    return (await session.scalars(newest_first.limit(1))).first()


async def latest_path(session: AsyncSession, name: str) -> str | None:
    """Where the newest `ready` checkpoint of this name is."""
    query = select(NameRow.path).where(NameRow.name == name)
    return (await session.scalars(query.order_by(NameRow.ready.desc()).limit(1))).first()


async def upload(
    session: AsyncSession, action_id: str, pod_uid: str | None, specs: dict[str, Any]
) -> bool:
    """Store what belongs to an action; whether there is one. What is None stays as it was."""
    row = await session.get(ActionRow, action_id, with_for_update=True)
    if row is None:
        return False
    given = {name: value for name, value in specs.items() if value is not None}
    row.upload = {**(row.upload or {}), **given}
    if pod_uid and not row.pod_uid:
        row.pod_uid = pod_uid
    return True


async def handed_over(session: AsyncSession, action_id: str) -> bool:
    """The broker has it; False if it was given up meanwhile."""
    going_on = or_(ActionRow.handed_over, ActionRow.state != State.ERROR.value)
    changed = await session.execute(
        update(ActionRow)
        .where(ActionRow.action_id == action_id, going_on)
        .values(handed_over=True)
        .returning(ActionRow.action_id)
        # No row of it is in this session; looking for one takes longer than all else here.
        .execution_options(synchronize_session=False)
    )
    return changed.first() is not None


async def give_up(
    session: AsyncSession,
    action_id: str,
    failure: dict[str, Any],
    *,
    seen: int | None = None,
    unsent: bool = False,
) -> bool:
    """End an action with an `error` of the API's own; whether it had not ended.

    Args:
        seen: only if nothing was heard since this sequence.
        unsent: only if nobody's request was answered with it: the broker has not confirmed it.
    """
    row = await session.get(ActionRow, action_id, with_for_update=True)
    if row is None or row.state not in OPEN or (seen is not None and row.sequence != seen):
        return False
    if unsent and row.handed_over:
        return False
    row.state, row.failure, row.updated = State.ERROR.value, failure, now()
    # No event has this number, and an action is given up once.
    session.add(
        TransitionRow(
            action_id=action_id, sequence=UNHEARD, state=State.ERROR.value, time=row.updated
        )
    )
    return True


async def unheard_of(
    session: AsyncSession, before: int, limit: int, after: ActionRow | None = None
) -> Sequence[ActionRow]:
    """Open actions of which nothing was heard since ``before``, oldest first.

    Args:
        after: only those that come after this one.
    """
    query = select(ActionRow).options(LIGHT)
    query = query.where(ActionRow.state.in_(OPEN), ActionRow.updated < before)
    if after is not None:
        here = tuple_(ActionRow.created, ActionRow.action_id)
        query = query.where(here > (after.created, after.action_id))
    query = query.order_by(ActionRow.created, ActionRow.action_id)
    return (await session.scalars(query.limit(limit))).all()


async def idempotent(session: AsyncSession, token_id: str, key: str) -> IdempotencyRow | None:
    """What a key stands for."""
    return await session.get(IdempotencyRow, (token_id, key))


async def forget_key(session: AsyncSession, token_id: str, key: str, action_id: str) -> None:
    """Free a key whose action was never begun."""
    await session.execute(
        delete(IdempotencyRow).where(
            IdempotencyRow.token_id == token_id,
            IdempotencyRow.key == key,
            IdempotencyRow.action_id == action_id,
        )
    )


async def forget_old_keys(session: AsyncSession) -> None:
    """Free the keys of more than a day ago."""
    await session.execute(delete(IdempotencyRow).where(IdempotencyRow.created < now() - _KEY_LIFE))
