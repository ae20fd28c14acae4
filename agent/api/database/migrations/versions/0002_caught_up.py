"""Until when all that nodes have said is in the tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """To this version."""
    op.add_column("projection", sa.Column("caught_up", sa.BigInteger(), nullable=True))
