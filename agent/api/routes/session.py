"""A browser's way in: the token becomes a cookie that no script can read."""

from __future__ import annotations

from fastapi import APIRouter, Response
from starlette.requests import Request

from agent.api.auth import COOKIE, AnyCaller, address_of
from agent.api.database import tokens
from agent.api.errors import Unauthenticated
from agent.api.parts import Here
from agent.api.routes.answering import refusals
from agent.api.schemas import Credentials, Session

router = APIRouter(prefix="/session", tags=["Session"])


@router.post(
    "",
    operation_id="sign_in",
    summary="Keep a token as a cookie",
    status_code=204,
    responses=refusals(s400="Invalid request parameters"),
)
async def sign_in(body: Credentials, request: Request, response: Response, parts: Here) -> None:
    """For the pages of this server, until the browser is closed."""
    async with parts.database.read() as session:
        caller = await tokens.caller_of(session, body.token)
    if caller is None:
        # Guessing a token here is as slow as elsewhere.
        parts.wrong.ask(address_of(request))
        raise Unauthenticated("the token is not valid")
    secure = request.url.scheme == "https"
    response.set_cookie(COOKIE, body.token, httponly=True, samesite="strict", secure=secure)


@router.get("", operation_id="get_session", summary="Who is asking", responses=refusals())
async def get_session(caller: AnyCaller) -> Session:
    """Whose token it is, and what it may."""
    return Session(name=caller.name, scopes=sorted(caller.scopes))


@router.delete(
    "",
    operation_id="sign_out",
    summary="Forget the cookie",
    status_code=204,
    responses=refusals(),
)
async def sign_out(response: Response, caller: AnyCaller) -> None:
    """The token itself stays valid."""
    response.delete_cookie(COOKIE, httponly=True, samesite="strict")
