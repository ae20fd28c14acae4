"""Bearer tokens: ``cpa_<id>_<secret>``, of which only a digest of the secret is kept.

A secret has 256 random bits: there is nothing to guess, so one round of SHA-256 is as good as a
slow hash, and does not cost 100 ms for each request.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from agent.api.database.connection import now
from agent.api.database.tables import TokenRow

SCOPES: Final = ("read", "checkpoint", "restore")

_TOKEN: Final = re.compile(r"cpa_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, and what it may."""

    token_id: str
    name: str
    scopes: frozenset[str]


async def create(session: AsyncSession, name: str, scopes: Collection[str]) -> str:
    """A new token. This is the only time that it can be seen."""
    token_id, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
    session.add(
        TokenRow(
            token_id=token_id,
            name=name,
            digest=_digest(secret),
            scopes=" ".join(scope for scope in SCOPES if scope in scopes),
            created=now(),
        )
    )
    return f"cpa_{token_id}_{secret}"


async def caller_of(session: AsyncSession, token: str) -> Caller | None:
    """Whose token it is; None when it is none, wrong or revoked."""
    found = _TOKEN.fullmatch(token)
    row = await session.get(TokenRow, found[1]) if found else None
    # Of an unknown id as well: an answer takes as long whether or not there is one.
    digest = row.digest if row is not None else _digest("")
    right = hmac.compare_digest(digest, _digest(found[2] if found else ""))
    if row is None or found is None or not right or row.revoked is not None:
        return None
    return Caller(row.token_id, row.name, frozenset(row.scopes.split()))


async def all_of(session: AsyncSession) -> Sequence[TokenRow]:
    """Oldest first."""
    return (await session.scalars(select(TokenRow).order_by(TokenRow.created))).all()


async def revoke(session: AsyncSession, token_id: str) -> bool:
    """Make a token worthless; whether there is one."""
    row = await session.get(TokenRow, token_id, with_for_update=True)
    if row is not None and row.revoked is None:
        row.revoked = now()
    return row is not None


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
