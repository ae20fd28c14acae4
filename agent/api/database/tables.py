"""The tables, as classes; migrations/ makes them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, BigInteger, Index, Integer, String
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedAsDataclass, mapped_column

# PostgreSQL's binary form: smaller to read, and it refuses what is no JSON.
Json = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")

# One that nobody has heard of yet is before all that a node may say, refusals (0) included.
UNHEARD = -1


class Table(MappedAsDataclass, DeclarativeBase, kw_only=True):
    """Root of all tables."""


class ActionRow(Table):
    """One action: what was asked for, and where it is.

    ``sequence`` is that of the last event that was taken over, ``handed_over`` whether the broker
    has confirmed it, ``names`` under which name each container's checkpoint is to be found.
    """

    __tablename__ = "actions"
    __table_args__ = (
        Index("actions_newest", "created", "action_id"),
        Index("actions_of_pod", "pod_uid", "created", "action_id"),
        # Those that are not over: few, however many there have been.
        Index("actions_by_state", "state", "created", "action_id"),
        Index("actions_by_node", "node", "created", "action_id"),
        Index("actions_by_namespace", "pod_namespace", "created", "action_id"),
        Index("actions_by_type", "type", "created", "action_id"),
        # For heartbeats, which there may be none of among a million.
        Index("actions_by_reason", "reason", "created", "action_id"),
    )

    action_id: Mapped[str] = mapped_column(String(36), primary_key=True)
    type: Mapped[str] = mapped_column(String(32))
    state: Mapped[str] = mapped_column(String(32))
    cluster: Mapped[str] = mapped_column(String(128))
    node: Mapped[str] = mapped_column(String(128))
    created: Mapped[int] = mapped_column(BigInteger)
    updated: Mapped[int] = mapped_column(BigInteger)
    completed: Mapped[int | None] = mapped_column(BigInteger, default=None)
    sequence: Mapped[int] = mapped_column(BigInteger, default=UNHEARD)
    handed_over: Mapped[bool] = mapped_column(default=False)
    pod_uid: Mapped[str] = mapped_column(String(128), default="")
    pod_namespace: Mapped[str] = mapped_column(String(253), default="")
    pod_name: Mapped[str] = mapped_column(String(253), default="")
    kind: Mapped[str] = mapped_column(String(32), default="")
    reason: Mapped[str] = mapped_column(String(32), default="")
    platform: Mapped[str] = mapped_column(String(128), default="")
    gpu: Mapped[str] = mapped_column(String(256), default="")
    checkpoint_id: Mapped[str | None] = mapped_column(String(128), default=None)
    path: Mapped[str | None] = mapped_column(String(4096), default=None)
    restored_from: Mapped[str | None] = mapped_column(String(36), default=None)
    request: Mapped[dict[str, Any]] = mapped_column(Json, default_factory=dict)
    names: Mapped[dict[str, str]] = mapped_column(Json, default_factory=dict)
    progress: Mapped[dict[str, Any] | None] = mapped_column(Json, default=None)
    outcome: Mapped[dict[str, Any] | None] = mapped_column(Json, default=None)
    failure: Mapped[dict[str, Any] | None] = mapped_column(Json, default=None)
    # What was uploaded: pod_spec, pod_metadata_spec, persistent_volume_claim.
    upload: Mapped[dict[str, Any] | None] = mapped_column(Json, default=None)


class TransitionRow(Table):
    """An action has come into another state: once for each."""

    __tablename__ = "transitions"

    action_id: Mapped[str] = mapped_column(String(36), primary_key=True)
    sequence: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    state: Mapped[str] = mapped_column(String(32))
    time: Mapped[int] = mapped_column(BigInteger)


class NameRow(Table):
    """A `ready` checkpoint under one of its names."""

    __tablename__ = "checkpoint_names"
    __table_args__ = (Index("checkpoint_names_newest", "name", "ready"),)

    name: Mapped[str] = mapped_column(String(1024), primary_key=True)
    action_id: Mapped[str] = mapped_column(String(36), primary_key=True)
    path: Mapped[str] = mapped_column(String(4096))
    ready: Mapped[int] = mapped_column(BigInteger)


class IdempotencyRow(Table):
    """Which action a token's Idempotency-Key stands for; kept for a day."""

    __tablename__ = "idempotency_keys"
    __table_args__ = (Index("idempotency_keys_oldest", "created"),)

    token_id: Mapped[str] = mapped_column(String(32), primary_key=True)
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    action_id: Mapped[str] = mapped_column(String(36))
    # Of the request, so that a key that is used for another one is noticed.
    fingerprint: Mapped[str] = mapped_column(String(64))
    created: Mapped[int] = mapped_column(BigInteger)


class TokenRow(Table):
    """A bearer token: of its secret only the SHA-256."""

    __tablename__ = "tokens"

    token_id: Mapped[str] = mapped_column(String(32), primary_key=True)
    name: Mapped[str] = mapped_column(String(128))
    digest: Mapped[str] = mapped_column(String(64))
    scopes: Mapped[str] = mapped_column(String(64))
    created: Mapped[int] = mapped_column(BigInteger)
    revoked: Mapped[int | None] = mapped_column(BigInteger, default=None)


class ProjectionRow(Table):
    """How far ACTION_EVENTS has been read into the tables above, and by whom. There is one row."""

    __tablename__ = "projection"

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    # Which stream, and the last message of it.
    stream: Mapped[str] = mapped_column(String(64))
    sequence: Mapped[int] = mapped_column(BigInteger)
    # One instance reads, the others stand by until its time is up.
    holder: Mapped[str] = mapped_column(String(64))
    held_until: Mapped[int] = mapped_column(BigInteger)
    # All that was in the stream at that time is in the tables; None where nobody knows.
    caught_up: Mapped[int | None] = mapped_column(BigInteger, default=None)
