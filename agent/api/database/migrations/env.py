"""What Alembic runs: the steps, on the connection that Database.migrate has opened."""

from __future__ import annotations

from alembic import context

from agent.api.database.tables import Table

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Table.metadata,
    # SQLite cannot change a column; Alembic makes the table anew then.
    render_as_batch=True,
)
context.run_migrations()
