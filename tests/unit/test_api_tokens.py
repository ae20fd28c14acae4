"""Tokens in a real database: what is kept of them, and whose is whose."""

from __future__ import annotations

import hashlib
import re

import pytest

from agent.api.database import Database, tokens
from agent.api.database.tables import TokenRow


async def create(database: Database, name: str, *scopes: str) -> str:
    async with database.write() as session:
        return await tokens.create(session, name, scopes or tokens.SCOPES)


async def caller(database: Database, token: str) -> tokens.Caller | None:
    async with database.read() as session:
        return await tokens.caller_of(session, token)


async def revoke(database: Database, token_id: str) -> bool:
    async with database.write() as session:
        return await tokens.revoke(session, token_id)


async def test_only_a_digest_is_kept(database: Database) -> None:
    token = await create(database, "ci", "restore", "read")
    found = re.fullmatch(r"cpa_([0-9a-f]{12})_([A-Za-z0-9_-]{43})", token)
    assert found is not None
    async with database.read() as session:
        row = await session.get(TokenRow, found[1])
    assert row is not None
    assert row.digest == hashlib.sha256(found[2].encode()).hexdigest()
    assert (row.name, row.scopes, row.revoked) == ("ci", "read restore", None)
    assert found[2] not in repr(row)


async def test_who_shows_one_is_known(database: Database) -> None:
    mine, theirs = await create(database, "mine", "read"), await create(database, "theirs")
    assert mine != theirs
    known = await caller(database, mine)
    assert known == tokens.Caller(mine[4:16], "mine", frozenset({"read"}))
    other = await caller(database, theirs)
    assert other is not None
    assert other.scopes == {"read", "checkpoint", "restore"}


async def test_nobody_else_is(database: Database) -> None:
    one, other = await create(database, "one"), await create(database, "other")
    wrong = (
        "",
        "cpa",
        one[:-1],
        f"{one}x",
        f" {one}",
        f"{one}\n",
        one.upper(),
        one.replace("cpa_", "cpb_"),
        f"{one[:16]}_{other[17:]}",
        f"cpa_{'0' * 12}_{one[17:]}",
        f"{one[:16]}_{'é' * 43}",
        "\0",
    )
    for token in wrong:
        assert await caller(database, token) is None, token


async def test_a_revoked_one_is_worthless(database: Database) -> None:
    one, other = await create(database, "one"), await create(database, "other")
    assert await revoke(database, one[4:16])
    assert await caller(database, one) is None
    assert await caller(database, other) is not None
    # There is one of that id, even if it is no good any more.
    assert await revoke(database, one[4:16])
    assert not await revoke(database, "0" * 12)
    async with database.read() as session:
        rows = await tokens.all_of(session)
    assert [row.name for row in rows] == ["one", "other"]
    assert [row.revoked is None for row in rows] == [False, True]


@pytest.mark.parametrize("scopes", [(), ("read",), tokens.SCOPES])
async def test_scopes_stay_as_they_were_given(database: Database, scopes: tuple[str, ...]) -> None:
    async with database.write() as session:
        token = await tokens.create(session, "x", scopes)
    found = await caller(database, token)
    assert found is not None
    assert found.scopes == set(scopes)
