"""A million actions that were done before, written into the API's tables with SQL."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from string import Template

import asyncpg

from bench.scale.pods import CLUSTER
from bench.scale.stage import Stage

_SCRIPT = Path(__file__).with_name("history.sql")
_TABLES = ("actions", "transitions", "checkpoint_names")

# Keys and indexes of a table, with what makes each of them again.
_KEYS = """
SELECT format('ALTER TABLE %s DROP CONSTRAINT %I', conrelid::regclass, conname),
    format('ALTER TABLE %s ADD CONSTRAINT %I %s', conrelid::regclass, conname,
        pg_get_constraintdef(oid))
FROM pg_constraint WHERE conrelid = $1::text::regclass AND contype = 'p'
UNION ALL
SELECT format('DROP INDEX %s', indexrelid::regclass), pg_get_indexdef(indexrelid)
FROM pg_index WHERE indrelid = $1::text::regclass AND NOT indisprimary
"""


async def write(stage: Stage) -> dict[str, float]:
    """Write them; the size of each table with its indexes, in MiB.

    Without indexes, which are made afterwards as they were, and without a log of what is written:
    it is read from then on.
    """
    connection = await stage.connect()
    try:
        keys = [key for table in _TABLES for key in await connection.fetch(_KEYS, table)]
        await _execute(connection, [f"ALTER TABLE {table} SET UNLOGGED" for table in _TABLES])
        await _execute(connection, [drop for drop, _ in keys])
        # Before all that is there.
        end = await connection.fetchval("SELECT min(created) - 1 FROM actions")
        await _execute(connection, _statements(stage.size.rows, stage.size.all_nodes, end))
        # Primary keys are first, and as large as all others.
        await _execute(connection, [create for _, create in keys])
        await _execute(connection, [f"VACUUM ANALYZE {table}" for table in _TABLES])
        query = "SELECT pg_total_relation_size($1::text::regclass) / 1048576.0"
        return {table: float(await connection.fetchval(query, table)) for table in _TABLES}
    finally:
        await connection.close()


def _statements(rows: int, nodes: int, end: int) -> list[str]:
    text = Template(_SCRIPT.read_text()).substitute(
        cluster=CLUSTER, rows=rows, nodes=nodes, end=end
    )
    return [statement for statement in text.split(";\n") if statement.strip()]


async def _execute(connection: asyncpg.Connection, statements: Sequence[str]) -> None:
    for statement in statements:
        began = time.monotonic()
        await connection.execute(statement, timeout=600)
        lines = [line for line in statement.splitlines() if line and not line.startswith("--")]
        print(f"  {time.monotonic() - began:5.1f} s  {lines[0][:80]}", flush=True)
