"""Who asks: the first thing that is looked at, before a byte of a body is read."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Final, cast
from urllib.parse import urlsplit

from fastapi import Depends
from starlette.requests import HTTPConnection, Request

from agent.api.database import Database, tokens
from agent.api.database.tokens import Caller
from agent.api.errors import Forbidden, Unauthenticated

# Of browsers; HttpOnly, so that no script can read it.
COOKIE: Final = "checkpoint_agent_token"

_SAFE: Final = ("GET", "HEAD", "OPTIONS")


async def authenticate(request: Request, database: Database) -> Caller:
    """Whoever's token is in the header or, else, in the cookie.

    Raises:
        Unauthenticated: there is none, or it is not valid.
        Forbidden: a browser sends somebody else's request.
        DatabaseFailed
    """
    token = _bearer(request)
    if token is None:
        token = request.cookies.get(COOKIE)
        if token is None:
            raise Unauthenticated("a token is needed")
        _same_origin(request)
    async with database.read() as session:
        caller = await tokens.caller_of(session, token)
    if caller is None:
        raise Unauthenticated("the token is not valid")
    return caller


def address_of(request: Request) -> str:
    """Where it comes from; of a proxy's clients all are from there."""
    return request.client.host if request.client else ""


# FastAPI calls plain functions in threads, which costs more than all that these do.
async def caller_of(connection: HTTPConnection) -> Caller:
    """Who was authenticated."""
    return cast(Caller, connection.state.caller)


def _may(scope: str) -> Callable[[HTTPConnection], Awaitable[Caller]]:
    async def check(connection: HTTPConnection) -> Caller:
        caller = await caller_of(connection)
        if scope not in caller.scopes:
            raise Forbidden(f"the token {caller.name!r} lacks the scope {scope!r}")
        return caller

    return check


# Parameters of routes.
AnyCaller = Annotated[Caller, Depends(caller_of)]
Reader = Annotated[Caller, Depends(_may("read"))]
Checkpointer = Annotated[Caller, Depends(_may("checkpoint"))]
Restorer = Annotated[Caller, Depends(_may("restore"))]


def _bearer(request: Request) -> str | None:
    header = request.headers.get("Authorization")
    if header is None:
        return None
    scheme, _, token = header.partition(" ")
    if scheme.lower() != "bearer":
        raise Unauthenticated("the header Authorization has to be `Bearer TOKEN`")
    return token.strip()


def _same_origin(request: Request) -> None:
    """A cookie goes along with every request to us, also with those that other pages make.

    Raises:
        Forbidden: it would change something, and no page of ours has sent it.
    """
    if request.method in _SAFE:
        return
    if request.headers.get("Sec-Fetch-Site") == "same-origin":
        return
    origin = request.headers.get("Origin", "")
    if urlsplit(origin).netloc == request.headers.get("Host", "") != "":
        return
    raise Forbidden("a request with the cookie has to come from a page of this server")
