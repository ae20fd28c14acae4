"""The page for people: files that are served as they are. Without a token, only the way in."""

from __future__ import annotations

from importlib import resources
from typing import Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from agent.api.auth import authenticate
from agent.api.errors import Forbidden, NoSuchPage, Unauthenticated
from agent.api.parts import Here

router = APIRouter(include_in_schema=False)

# What the sign-in page consists of.
PUBLIC: Final = ("style.css", "sign-in.js", "favicon.svg")

_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}

# Nothing but our own files, and never inside of somebody else's page.
_POLICY: Final = "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"


@router.get("/")
async def index(request: Request, parts: Here) -> Response:
    """The page, or the one to sign in on."""
    try:
        await authenticate(request, parts.database)
    except (Unauthenticated, Forbidden):
        return _file("sign-in.html", 401)
    return _file("index.html")


@router.get("/page/{file}")
async def page_file(file: str) -> Response:
    """A part of the page."""
    return _file(file)


def _file(name: str, status: int = 200) -> Response:
    ending = name[name.rfind(".") :]
    page = resources.files("agent.api").joinpath("page")
    # By the names that there are: any other may be too long for a file's, or lead elsewhere.
    if ending not in _TYPES or name not in {each.name for each in page.iterdir()}:
        raise NoSuchPage(f"/page/{name}")
    headers = {
        "Content-Security-Policy": _POLICY,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        # A new version is seen at once; these are a few kilobytes.
        "Cache-Control": "no-cache",
    }
    return Response(page.joinpath(name).read_bytes(), status, headers, _TYPES[ending])
