"""Tokens for whoever starts the API, who knows nothing of its tables."""

from __future__ import annotations

from agent.api.database import open_database, tokens
from agent.settings import Api


async def renew_token(settings: Api, name: str) -> str:
    """A new token of all scopes; those of the same name before it are worthless from then on.

    Raises:
        DatabaseFailed
        InvalidArgument: as ``open_database`` raises it.
    """
    database = open_database(settings)
    try:
        await database.migrate()
        async with database.write() as session:
            for row in await tokens.all_of(session):
                if row.name == name:
                    await tokens.revoke(session, row.token_id)
            return await tokens.create(session, name, tokens.SCOPES)
    finally:
        await database.close()
