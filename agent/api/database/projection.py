"""ACTION_EVENTS taken over into the tables: each event once, in order, and never backwards.

How far the stream has been read stands in the same database and is moved in the same transaction as
what was read: whatever dies, nothing is taken over twice and nothing is left out. Instances take
turns by a lease, and one that was thought dead and is not finds the position moved and stops.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from agent.api.database.actions import LIGHT
from agent.api.database.connection import Database, now
from agent.api.database.plain import fitting, plain
from agent.api.database.tables import ActionRow, NameRow, ProjectionRow, TransitionRow
from agent.events import Position, StoredEvent
from agent.messages.model import ActionType, Event, State
from agent.targets import PodRef

# Microseconds. As long as an instance that has died keeps the others waiting.
LEASE: Final = 10_000_000

_RANK: Final = {state.value: rank for rank, state in enumerate(State)}

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

# What a column of 64 bits can count to.
_MOST: Final = (1 << 63) - 1

# Names of a pod's containers: of an action that this API did not ask for.
Names = Callable[[str, PodRef], Mapping[str, str]]


async def claim(database: Database, holder: str) -> Position | None:
    """Where to read on, if it is this instance's turn."""
    try:
        async with database.write() as session:
            row = await session.get(ProjectionRow, 1, with_for_update=True)
            if row is None:
                row = ProjectionRow(id=1, stream="", sequence=0, holder=holder, held_until=0)
                session.add(row)
            # One whose clock was ahead has written a time that no lease lasts until; it is over.
            if row.holder != holder and now() < row.held_until <= now() + 2 * LEASE:
                return None
            row.holder, row.held_until = holder, now() + LEASE
            return Position(row.stream, row.sequence)
    except IntegrityError:
        return None  # another one has made the row in the same moment


async def release(database: Database, holder: str) -> None:
    """Let another instance go on at once."""
    async with database.write() as session:
        await session.execute(
            update(ProjectionRow).where(ProjectionRow.holder == holder).values(held_until=0)
        )


async def apply(
    database: Database,
    holder: str,
    before: Position,
    after: Position,
    events: Sequence[StoredEvent],
    names: Names,
    caught_up: int | None = None,
) -> bool:
    """Take over what was read from ``before`` to ``after``; False if another one has.

    Args:
        caught_up: when all that was in the stream was what was read; None where there was more.
    """
    async with database.write() as session:
        row = await session.get(ProjectionRow, 1, with_for_update=True)
        if row is None or (row.holder, row.stream, row.sequence) != (
            holder, before.stream, before.sequence
        ):  # fmt: skip
            return False
        row.stream, row.sequence = after.stream, after.sequence
        row.held_until = now() + LEASE
        row.caught_up = caught_up or row.caught_up
        told = [each for each in events if each.event is not None]
        if told:
            await _take_over(session, told, names)
    return True


async def caught_up(session: AsyncSession) -> int:
    """Microseconds since 1970: all that was in the stream by then is taken over."""
    return (await session.scalar(select(ProjectionRow.caught_up))) or 0


async def _take_over(session: AsyncSession, events: Sequence[StoredEvent], names: Names) -> None:
    ids = {each.event.action_id for each in events if each.event is not None}
    query = select(ActionRow).options(LIGHT).where(ActionRow.action_id.in_(ids))
    query = query.order_by(ActionRow.action_id)
    rows = {row.action_id: row for row in await session.scalars(query.with_for_update())}
    for stored in events:
        event = stored.event
        if event is None or event.sequence > _MOST:
            continue
        row = rows.get(event.action_id)
        if row is None:
            row = rows[event.action_id] = _unasked(event, stored)
            session.add(row)
        if event.sequence > row.sequence and _is_about(row, event, stored):
            # Of a pod that Kubernetes made, the first node that speaks is the one that has it.
            row.node = row.node or fitting(stored.node, ActionRow.node)
            session.add_all(_advance(row, event, names))


def _is_about(row: ActionRow, event: Event, stored: StoredEvent) -> bool:
    """Whether it is this action that a node speaks of.

    The broker keeps clusters apart, and nodes of two of them may have the same name. A restore's id
    stands in an annotation of its pod, and whoever writes pods may write the id of somebody else's
    action there.
    """
    if row.type != event.type.value or row.cluster != fitting(stored.cluster, ActionRow.cluster):
        return False
    if row.node:
        return row.node == fitting(stored.node, ActionRow.node)
    pod = event.pod or PodRef()
    return (pod.namespace, pod.name) == (row.pod_namespace, row.pod_name)


def _unasked(event: Event, stored: StoredEvent) -> ActionRow:
    """A row for an action that came to its node in another way than through this API."""
    return ActionRow(
        action_id=event.action_id,
        type=event.type.value,
        state=State.INITIALIZED.value,
        cluster=fitting(stored.cluster, ActionRow.cluster),
        node=fitting(stored.node, ActionRow.node),
        created=micros(event),
        updated=micros(event),
        handed_over=True,
    )


def _advance(row: ActionRow, event: Event, names: Names) -> Iterable[TransitionRow | NameRow]:
    """Bring a row to where an event says it is; what has to be added to other tables."""
    state, first = event.state.value, row.sequence < 0
    ended = State(row.state).is_terminal
    goes_on = not ended and _RANK[state] >= _RANK[row.state]
    row.sequence = event.sequence
    # Of what was given up, nobody was told that it is under way, and nobody is to be.
    row.handed_over = row.handed_over or not ended
    # What the API has given up stays so, whatever its node says when it is back: somebody may have
    # acted upon it. The timeline tells how it ended there, not that it is at it: that comes for
    # hours, twice a second.
    if (first or state != row.state) and (goes_on or (ended and event.state.is_terminal)):
        yield TransitionRow(
            action_id=row.action_id, sequence=event.sequence, state=state, time=micros(event)
        )
    if not goes_on:
        return
    row.state, row.updated = state, max(now(), row.updated)
    row.progress = plain(asdict(event.progress)) if event.progress else row.progress
    if event.failure is not None:
        row.failure = plain({**asdict(event.failure), "details": dict(event.failure.details)})
    # Of an action that its node has begun by itself.
    row.reason = row.reason or fitting(event.reason, ActionRow.reason)
    if event.pod is not None:
        _identify(row, event.pod)
    if not row.names and row.type == ActionType.CHECKPOINT.value and row.pod_uid:
        row.names = dict(names(row.cluster, _pod(row)))
    _conclude(row, event)
    if event.state is State.READY:
        row.completed = micros(event)
        yield from _named(row, event)


def _identify(row: ActionRow, pod: PodRef) -> None:
    row.pod_uid = fitting(pod.uid, ActionRow.pod_uid) or row.pod_uid
    row.pod_namespace = fitting(pod.namespace, ActionRow.pod_namespace) or row.pod_namespace
    row.pod_name = fitting(pod.name, ActionRow.pod_name) or row.pod_name


def _pod(row: ActionRow) -> PodRef:
    return PodRef(row.pod_uid, row.pod_namespace, row.pod_name)


def _conclude(row: ActionRow, event: Event) -> None:
    outcome = event.checkpoint or event.restore
    if outcome is None:
        return
    row.outcome = plain(asdict(outcome))
    # In a list: PostgreSQL's JSON loses the order of an object.
    row.outcome["phases"] = [list(phase) for phase in row.outcome["phases"].items()]
    row.path = fitting(outcome.path, ActionRow.path)
    if event.checkpoint is not None:
        row.checkpoint_id = fitting(event.checkpoint.checkpoint_id, ActionRow.checkpoint_id)
        row.platform = fitting(event.checkpoint.platform, ActionRow.platform)
        row.gpu = fitting(_counted(event.checkpoint.gpus), ActionRow.gpu)


def _counted(models: Sequence[str]) -> str:
    """``NVIDIA H100``, ``8 x NVIDIA H100``."""
    counts = {model: models.count(model) for model in models}
    return ", ".join(model if n == 1 else f"{n} x {model}" for model, n in counts.items())


def _named(row: ActionRow, event: Event) -> Iterable[NameRow]:
    """A checkpoint's names: one for each container, and the one that it was given."""
    outcome = event.checkpoint
    if outcome is None:
        return
    pod = f"{row.pod_namespace}/{row.pod_name}"
    of_containers = {row.names.get(each) or f"{pod}/{each}" for each in outcome.containers}
    names = of_containers | ({outcome.name} if outcome.name else set())
    for name in sorted({fitting(each, NameRow.name) for each in names}):
        yield NameRow(name=name, action_id=row.action_id, path=row.path or "", ready=micros(event))


def micros(event: Event) -> int:
    """When an event happened, in microseconds since 1970."""
    return (event.time - _EPOCH) // timedelta(microseconds=1)
