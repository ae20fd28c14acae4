"""The journal: what this node was asked to do, how far that is, and which events are unsent.

One SQLite file in WAL mode. A change of state, its event and the event's place in the outbox are
one transaction: after a crash either all three are there or none. Such a transaction is on disk
(synchronous=FULL) before anybody acts on it.

Progress is different. It is worth nothing after a crash, so its transactions do not wait for the
disk (synchronous=NORMAL: they outlive the process, not the machine), and of each action only the
newest progress waits in the outbox. What a power loss may take is its sequence numbers; as a number
must never mean two events (the broker would drop the second one), opening a journal skips
``SEQUENCE_GAP`` numbers of each action that was under way.

Synchronous, for one thread at a time; see bookkeeper.py.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Collection, Iterable, Iterator
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path
from typing import Final

from agent.actions.births import birth_text, identified, with_birth
from agent.actions.rows import Attempt, OpenAction, OutboxRow, action_of, readable
from agent.actions.schema import migrate
from agent.errors import ActionNotFound, AlreadyExists, StoreFailed
from agent.host.boot import Moment
from agent.messages.events import event_message
from agent.messages.model import Action, ActionRequest, Event, State
from agent.messages.requests import message_of, to_json

# Progress that may be lost with the machine: twice a second, and every change of state of any
# action makes all progress before it durable. 500 s of one action that is alone on its node.
SEQUENCE_GAP: Final = 1000

_ACTION = "SELECT request, accepted, event FROM actions"


class Book:
    """One journal, open."""

    def __init__(self, path: Path, *, cluster: str, node: str, publishing: bool = True) -> None:
        """Open the journal or make one (mode 0600).

        Args:
            cluster, node: who says the events.
            publishing: whether there is a broker; without one the outbox stays empty.

        Raises:
            FormatTooNew: a newer agent wrote it.
            StoreFailed: it cannot be opened or is damaged; says what to do.
        """
        self._path, self._cluster, self._node = path, cluster, node
        self._publishing = publishing
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            # Only one thread at a time is here, but not always the same.
            self._database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        except (OSError, sqlite3.Error) as error:
            raise StoreFailed("open", str(path), str(error)) from error
        try:
            self._prepare()
        except BaseException:
            self._database.close()
            raise

    def _prepare(self) -> None:
        try:
            # Somebody may look at the file with the sqlite3 tool: 5 s for them to be done.
            self._database.execute("PRAGMA busy_timeout = 5000")
            self._database.execute("PRAGMA journal_mode = WAL")
            (found,) = self._database.execute("PRAGMA quick_check(1)").fetchone()
            if found != "ok":
                raise sqlite3.DatabaseError(found)
            migrate(self._database, str(self._path))
            self._database.execute(
                "UPDATE actions SET sequence = sequence + ? WHERE NOT ended", (SEQUENCE_GAP,)
            )
        except sqlite3.OperationalError as error:
            raise StoreFailed("open", str(self._path), str(error)) from error
        except sqlite3.DatabaseError as error:
            reason = (
                f"it is damaged ({error}). Stop the agent, move it and its -wal and -shm files"
                " aside, and start it again: it forgets its actions and their unsent events, and"
                " undoes what was under way"
            )
            raise StoreFailed("open", str(self._path), reason) from error

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()

    @contextlib.contextmanager
    def transaction(self, *, durable: bool) -> Iterator[None]:
        """All that is done in the block, or nothing; on disk at its end if ``durable``.

        Raises:
            StoreFailed: nothing of it was recorded.
        """
        with self._translated():
            try:
                self._database.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
                self._database.execute("BEGIN IMMEDIATE")
                yield
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def step(self) -> Iterator[None]:
        """A part of a transaction that fails alone. Raises StoreFailed."""
        if not self._database.in_transaction:
            # A full disk has ended it; a savepoint would quietly begin another one.
            raise StoreFailed("write", str(self._path), "what came before it failed")
        with self._translated():
            self._database.execute("SAVEPOINT step")
            try:
                yield
            except BaseException:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK TO step")
                    self._database.execute("RELEASE step")
                raise
            self._database.execute("RELEASE step")

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StoreFailed("write", str(self._path), str(error)) from error

    def accept(self, request: ActionRequest, event: Event) -> tuple[Action, bool]:
        """Write a new action down; False beside it when the same one was known already.

        Raises:
            AlreadyExists: another action has that id.
        """
        if (known := self.known(request)) is not None:
            return known, False
        request = identified(request)
        text = to_json(message_of(request)).decode()
        first = replace(event, sequence=1)
        when = _text(event.time)
        self._database.execute(
            "INSERT INTO actions"
            " (action_id, state, ended, accepted, updated, sequence, request, event, process)"
            " VALUES (?, ?, 0, ?, ?, 1, ?, ?, ?)",
            (
                *(request.action_id, event.state.value, when, when, text, self._post(first)),
                birth_text(request),
            ),
        )
        return Action(request, event.time, first), True

    def known(self, request: ActionRequest) -> Action | None:
        """The action that this request has begun before.

        Raises:
            AlreadyExists: another action has that id.
        """
        try:
            known = self.get(request.action_id)
        except ActionNotFound:
            return None
        if known.request != request:
            raise AlreadyExists("action", request.action_id)
        return known

    def attempt(self, action_id: str, attempt: Attempt, begun: Moment) -> None:
        """Remember what is about to be begun, before anything is touched, and when that was."""
        self._database.execute(
            "UPDATE actions SET attempt = ?, boot = ?, boot_seconds = ? WHERE action_id = ?",
            (json.dumps(asdict(attempt)), begun.boot, begun.seconds, action_id),
        )

    def advance(self, event: Event) -> Event:
        """An action is in another state, or got on: the event with its number.

        Raises:
            ActionNotFound
            ValueError: it is terminal already. Nothing comes after that.
        """
        row = self._database.execute(
            "SELECT sequence, ended FROM actions WHERE action_id = ?", (event.action_id,)
        ).fetchone()
        if row is None:
            raise ActionNotFound(event.action_id)
        sequence, ended = row
        if ended:
            raise ValueError(f"{event.action_id} has ended and cannot become {event.state}")
        numbered = replace(event, sequence=sequence + 1)
        self._database.execute(
            "UPDATE actions SET state = ?, ended = ?, updated = ?, sequence = ?, event = ?"
            " WHERE action_id = ?",
            (
                event.state.value,
                event.state.is_terminal,
                _text(event.time),
                numbered.sequence,
                self._post(numbered),
                event.action_id,
            ),
        )
        return numbered

    def refuse(self, event: Event) -> bool:
        """Send an event of something that never became an action; False if it is one."""
        with contextlib.suppress(ActionNotFound):
            self.get(event.action_id)
            return False
        self._post(replace(event, sequence=0))
        return True

    def get(self, action_id: str) -> Action:
        """Raises ActionNotFound."""
        query = f"{_ACTION} WHERE action_id = ?"
        row = self._database.execute(query, (action_id,)).fetchone()
        if row is None:
            raise ActionNotFound(action_id)
        return action_of(row)

    def actions(self, states: Collection[State] = (), limit: int = 100) -> list[Action]:
        """Newest first; of all states when none are given."""
        wanted = [state.value for state in states or State]
        marks = ", ".join("?" * len(wanted))
        query = f"{_ACTION} WHERE state IN ({marks}) ORDER BY number DESC LIMIT ?"
        rows = self._database.execute(query, (*wanted, limit))
        return [action for row in rows if (action := readable(row)) is not None]

    def open_actions(self) -> list[OpenAction]:
        """Those that are not terminal, oldest first."""
        rows = self._database.execute(
            "SELECT request, accepted, event, attempt, boot, boot_seconds, process FROM actions"
            " WHERE NOT ended ORDER BY number"
        )
        return [
            OpenAction(
                replace(action, request=with_birth(action.request, row[6])),
                Attempt(**json.loads(row[3])) if row[3] else None,
                Moment(row[4], row[5]) if row[4] else None,
            )
            for row in rows
            if (action := readable(row[:3])) is not None
        ]

    def outbox_next(self, limit: int) -> list[OutboxRow]:
        """The oldest events that are not confirmed."""
        rows = self._database.execute(
            "SELECT id, action_id, sequence, payload FROM outbox ORDER BY id LIMIT ?", (limit,)
        )
        return [OutboxRow(row[0], row[1], row[2], row[3].encode()) for row in rows]

    def outbox_confirm(self, ids: Iterable[int]) -> set[str]:
        """Forget these; what is not there any more is no error.

        Returns the actions of which none is left.
        """
        query = "DELETE FROM outbox WHERE id = ? RETURNING action_id"
        found = {row[0] for id_ in ids for row in self._database.execute(query, (id_,)).fetchall()}
        return {action_id for action_id in found if not self.unsent(action_id)}

    def outbox_depth(self) -> int:
        """How many events wait."""
        (depth,) = self._database.execute("SELECT count(*) FROM outbox").fetchone()
        return int(depth)

    def unsent(self, action_id: str) -> bool:
        """Whether an event of this action waits."""
        query = "SELECT 1 FROM outbox WHERE action_id = ? LIMIT 1"
        return self._database.execute(query, (action_id,)).fetchone() is not None

    def prune(self, before: datetime, keep: int) -> int:
        """Forget terminal actions without unsent events: those that ended before, and of the
        younger ones all but the newest ``keep``. Returns how many.
        """
        return self._database.execute(
            "DELETE FROM actions WHERE ended"
            " AND NOT EXISTS (SELECT 1 FROM outbox WHERE outbox.action_id = actions.action_id)"
            " AND (updated < ? OR number <= (SELECT number FROM actions"
            "      ORDER BY number DESC LIMIT 1 OFFSET ?))",
            (_text(before), keep),
        ).rowcount

    def _post(self, event: Event) -> str:
        """Put an event into the outbox; it replaces the action's progress there."""
        message = event_message(event, cluster=self._cluster, node=self._node)
        payload = to_json(message).decode()
        if self._publishing:
            self._database.execute(
                "DELETE FROM outbox WHERE action_id = ? AND progress", (event.action_id,)
            )
            self._database.execute(
                "INSERT INTO outbox (action_id, sequence, progress, payload) VALUES (?, ?, ?, ?)",
                (event.action_id, event.sequence, event.progress is not None, payload),
            )
        return payload


def _text(time: datetime) -> str:
    """Sorts as the times do: all are UTC, and of the same length."""
    return time.isoformat(timespec="microseconds")
