"""Taking an action: stored, then published, and answered when the broker has it.

An action that the broker did not confirm ends as an `error` at once, and is cancelled in case it
arrived all the same. Where the API died in between, a second request with the same key publishes it
again: under its id the broker stores it once, and its node does it once. One that nobody asks for
again is the sweeper's.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Final

from sqlalchemy.exc import IntegrityError

from agent.api.database import Database
from agent.api.database import actions as table
from agent.api.database.connection import now
from agent.api.database.tables import UNHEARD, ActionRow, IdempotencyRow
from agent.api.database.tokens import Caller
from agent.api.errors import EventStreamFailed
from agent.api.failures import failure_of
from agent.api.parts import Parts
from agent.errors import AgentError, BrokerFailed, InvalidArgument
from agent.events import Control
from agent.logs import get_logger
from agent.messages.model import ActionRequest, State

log = get_logger(__name__)

# Seconds. Somewhat longer than the broker gets to confirm an action: whoever was at it is dead.
_PATIENCE: Final = 8.0
_LOOK: Final = 0.05

# Seconds. Somebody waits for the answer, and a broker that has not confirmed the action within 5 s
# reads this after it, whenever it goes on.
_CANCEL_SECONDS: Final = 1.0

# An action's row as it is first stored, and what its node is asked, None where no node is known yet
# and somebody else goes on with the row; raises what it is refused with.
Preparation = Callable[[], Awaitable[tuple[ActionRow, ActionRequest | None]]]

# What the node of a row that was stored before is asked.
Again = Callable[[ActionRow], ActionRequest]


@dataclass(frozen=True, slots=True)
class Key:
    """An Idempotency-Key, whose it is, and the request it came with."""

    caller: Caller
    value: str
    fingerprint: str

    @classmethod
    def of(cls, caller: Caller, value: str | None, request: object) -> Key | None:
        """None if there is none. Raises InvalidArgument."""
        if value is None:
            return None
        if not 1 <= len(value) <= 255 or not value.isprintable():
            raise InvalidArgument("Idempotency-Key", "takes 1 to 255 printable characters")
        written = json.dumps(request, sort_keys=True).encode()
        return cls(caller, value, hashlib.sha256(written).hexdigest())


@dataclass(frozen=True, slots=True)
class Taken:
    """The action that a request stands for; whether an earlier one began it."""

    action_id: str
    replayed: bool = False


async def take(parts: Parts, key: Key | None, prepare: Preparation, again: Again) -> Taken:
    """Take an action, or find the one that the key stands for.

    Raises:
        InvalidArgument: the key was used for another request.
        EventStreamFailed: the broker did not confirm it.
        Refusal: as ``prepare`` raises it.
        DatabaseFailed
    """
    while True:
        if key is not None and (known := await _known(parts.database, key)):
            if not known.handed_over:
                await _see_through(_hand_over(parts, known, again(known)))
            return Taken(known.action_id, replayed=True)
        row, request = await prepare()
        try:
            await _insert(parts.database, row, key)
        except IntegrityError:
            continue  # the same key, in the same moment
        if request is None:
            parts.metrics.accepted.labels(row.type).inc()
            return Taken(row.action_id)
        await _see_through(_hand_over(parts, row, request))
        return Taken(row.action_id)


async def _see_through(handing: Coroutine[None, None, None]) -> None:
    """Shielded: a client that goes away meanwhile leaves nothing half done."""
    await asyncio.shield(asyncio.ensure_future(handing))


async def give_up(
    database: Database,
    control: Control,
    row: ActionRow,
    error: AgentError,
    *,
    seen: int,
    unsent: bool = False,
) -> bool:
    """End an action whose node was never heard of, and keep it from being done later.

    Args:
        unsent: only if the broker has not confirmed it.

    Returns:
        Whether it had not ended, and nothing was heard of it since ``seen``.
    """
    failure = failure_of(error)
    async with database.write() as session:
        ended = await table.give_up(session, row.action_id, failure, seen=seen, unsent=unsent)
    if ended:
        log.warning("action given up", action_id=row.action_id, reason=str(error))
    # What waits for its pod is no node's yet.
    if ended and row.node:
        await _cancel(control, row)
    return ended


async def _cancel(control: Control, row: ActionRow, *, again: bool = False) -> None:
    try:
        async with asyncio.timeout(_CANCEL_SECONDS):
            await control.cancel(row.cluster, row.node, row.action_id, again=again)
    except (BrokerFailed, TimeoutError) as away:
        # What is in the stream stays there; its node does it, and the timeline tells.
        log.warning("not cancelled", action_id=row.action_id, reason=str(away))


async def _known(database: Database, key: Key) -> ActionRow | None:
    """The action of a key, once nobody is at it any more; None if there is none to go on with.

    Raises:
        InvalidArgument
    """
    clock = asyncio.get_running_loop().time
    began = clock()
    while True:
        async with database.read() as session:
            found = await table.idempotent(session, key.caller.token_id, key.value)
            row = await table.get(session, found.action_id) if found else None
        if found is None or row is None:
            return None
        if found.fingerprint != key.fingerprint:
            raise InvalidArgument("Idempotency-Key", "was used for another request")
        if row.handed_over:
            return row
        if row.state == State.ERROR.value:
            # It never got as far as the broker: this is the second attempt that keys are for.
            async with database.write() as session:
                await table.forget_key(session, key.caller.token_id, key.value, row.action_id)
            return None
        # By our own clock as well: that of who has stored it may go wrong.
        if max(clock() - began, (now() - row.created) / 1e6) > _PATIENCE:
            return row
        await asyncio.sleep(_LOOK)


async def _insert(database: Database, row: ActionRow, key: Key | None) -> None:
    async with database.write() as session:
        session.add(row)
        if key is not None:
            session.add(
                IdempotencyRow(
                    token_id=key.caller.token_id,
                    key=key.value,
                    action_id=row.action_id,
                    fingerprint=key.fingerprint,
                    created=now(),
                )
            )


async def _hand_over(parts: Parts, row: ActionRow, request: ActionRequest) -> None:
    try:
        await parts.control.hand_over(row.cluster, row.node, request)
    except BrokerFailed as error:
        failed = EventStreamFailed(error.reason)
        await give_up(parts.database, parts.control, row, failed, seen=UNHEARD, unsent=True)
        parts.metrics.given_up.labels(failed.code).inc()
        raise failed from error
    async with parts.database.write() as session:
        going_on = await table.handed_over(session, row.action_id)
    if not going_on:
        # It may have been published after it was given up and cancelled.
        await _cancel(parts.control, row, again=True)
        raise EventStreamFailed("its answer was so late that the action had been given up")
    parts.metrics.accepted.labels(row.type).inc()
