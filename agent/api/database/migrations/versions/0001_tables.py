"""The tables as they were first made."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

Json = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")

revision = "0001"
down_revision = None


def upgrade() -> None:
    """To this version."""
    op.create_table(
        "actions",
        sa.Column("action_id", sa.String(length=36), nullable=False),
        sa.Column("type", sa.String(length=32), nullable=False),
        sa.Column("state", sa.String(length=32), nullable=False),
        sa.Column("cluster", sa.String(length=128), nullable=False),
        sa.Column("node", sa.String(length=128), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("updated", sa.BigInteger(), nullable=False),
        sa.Column("completed", sa.BigInteger(), nullable=True),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("handed_over", sa.Boolean(), nullable=False),
        sa.Column("pod_uid", sa.String(length=128), nullable=False),
        sa.Column("pod_namespace", sa.String(length=253), nullable=False),
        sa.Column("pod_name", sa.String(length=253), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("reason", sa.String(length=32), nullable=False),
        sa.Column("platform", sa.String(length=128), nullable=False),
        sa.Column("gpu", sa.String(length=256), nullable=False),
        sa.Column("checkpoint_id", sa.String(length=128), nullable=True),
        sa.Column("path", sa.String(length=4096), nullable=True),
        sa.Column("restored_from", sa.String(length=36), nullable=True),
        sa.Column("request", Json, nullable=False),
        sa.Column("names", Json, nullable=False),
        sa.Column("progress", Json, nullable=True),
        sa.Column("outcome", Json, nullable=True),
        sa.Column("failure", Json, nullable=True),
        sa.Column("upload", Json, nullable=True),
        sa.PrimaryKeyConstraint("action_id"),
    )
    op.create_index("actions_by_namespace", "actions", ["pod_namespace", "created", "action_id"])
    op.create_index("actions_by_node", "actions", ["node", "created", "action_id"])
    op.create_index("actions_by_reason", "actions", ["reason", "created", "action_id"])
    op.create_index("actions_by_state", "actions", ["state", "created", "action_id"])
    op.create_index("actions_by_type", "actions", ["type", "created", "action_id"])
    op.create_index("actions_newest", "actions", ["created", "action_id"])
    op.create_index("actions_of_pod", "actions", ["pod_uid", "created", "action_id"])

    op.create_table(
        "checkpoint_names",
        sa.Column("name", sa.String(length=1024), nullable=False),
        sa.Column("action_id", sa.String(length=36), nullable=False),
        sa.Column("path", sa.String(length=4096), nullable=False),
        sa.Column("ready", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", "action_id"),
    )
    op.create_index("checkpoint_names_newest", "checkpoint_names", ["name", "ready"])

    op.create_table(
        "idempotency_keys",
        sa.Column("token_id", sa.String(length=32), nullable=False),
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("action_id", sa.String(length=36), nullable=False),
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("token_id", "key"),
    )
    op.create_index("idempotency_keys_oldest", "idempotency_keys", ["created"])

    op.create_table(
        "projection",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("stream", sa.String(length=64), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("holder", sa.String(length=64), nullable=False),
        sa.Column("held_until", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "tokens",
        sa.Column("token_id", sa.String(length=32), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("scopes", sa.String(length=64), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("revoked", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("token_id"),
    )
    op.create_table(
        "transitions",
        sa.Column("action_id", sa.String(length=36), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(length=32), nullable=False),
        sa.Column("time", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("action_id", "sequence"),
    )
