"""The tables of the journal, and how an older journal becomes one of today.

``PRAGMA user_version`` counts the steps that a file has been through; each step runs in one
transaction with the change of that number.
"""

from __future__ import annotations

import sqlite3
from typing import Final

from agent.errors import FormatTooNew

# One entry for each version; never changed once released, only added to.
STEPS: Final[tuple[tuple[str, ...], ...]] = (
    (
        """
        CREATE TABLE actions (
            number INTEGER PRIMARY KEY,  -- in order of acceptance
            action_id TEXT NOT NULL UNIQUE,
            state TEXT NOT NULL,
            ended INTEGER NOT NULL,      -- whether that is a terminal one
            accepted TEXT NOT NULL,
            updated TEXT NOT NULL,
            sequence INTEGER NOT NULL,
            request TEXT NOT NULL,       -- pb.ActionRequest in canonical JSON
            event TEXT NOT NULL,         -- the latest pb.ActionEvent, likewise
            attempt TEXT                 -- what was begun, before anything was touched
        ) STRICT
        """,
        "CREATE INDEX actions_by_state ON actions (state, number)",
        "CREATE INDEX actions_open ON actions (number) WHERE NOT ended",
        # AUTOINCREMENT: a number is never used twice, so a late confirmation of a row that was
        # replaced meanwhile cannot remove another one.
        """
        CREATE TABLE outbox (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            action_id TEXT NOT NULL,
            sequence INTEGER NOT NULL,
            progress INTEGER NOT NULL,
            payload TEXT NOT NULL
        ) STRICT
        """,
        "CREATE INDEX outbox_by_action ON outbox (action_id)",
    ),
    (
        # When the attempt was begun: in which boot of the machine, and how long after its start.
        # Without for what an agent of the first version has begun.
        "ALTER TABLE actions ADD COLUMN boot TEXT",
        "ALTER TABLE actions ADD COLUMN boot_seconds REAL",
    ),
    # Which process is meant where the request names a pid, as JSON of agent.targets.Birth.
    ("ALTER TABLE actions ADD COLUMN process TEXT",),
)


def migrate(database: sqlite3.Connection, path: str) -> None:
    """Bring a journal to today's form; a new one from nothing.

    Raises:
        FormatTooNew: a newer agent wrote it.
        sqlite3.Error
    """
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if version > len(STEPS):
        raise FormatTooNew(path, version, len(STEPS))
    for number, statements in enumerate(STEPS[version:], start=version + 1):
        database.execute("BEGIN IMMEDIATE")
        for statement in statements:
            database.execute(statement)
        database.execute(f"PRAGMA user_version = {number}")
        database.execute("COMMIT")
