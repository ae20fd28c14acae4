"""The application: routes, errors, and the document that describes them."""

from __future__ import annotations

from typing import Any, Final

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp

from agent import __version__
from agent.api.answers import api_error, refusal
from agent.api.auth import Reader
from agent.api.errors import NoSuchPage
from agent.api.guard import Guard
from agent.api.parts import Parts
from agent.api.routes import ROUTERS
from agent.errors import AgentError, InvalidArgument

_DESCRIPTION: Final = (
    "Checkpoints and restores of pods: asked for here, done by the agent on the pod's node. "
    "Every call needs a token: `Authorization: Bearer TOKEN`."
)

_ERROR: Final = {"$ref": "#/components/schemas/ApiError"}


def build(parts: Parts) -> ASGIApp:
    """The application with everything around it."""
    app = _bare()
    app.state.parts = parts
    return Guard(app, parts)


def schema() -> dict[str, Any]:
    """What /openapi.json answers."""
    return _bare().openapi()


def _bare() -> FastAPI:
    app = FastAPI(
        title="Actions API",
        version="2",
        description=_DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        # What a slash too many means is not ours to guess.
        redirect_slashes=False,
    )
    for router in ROUTERS:
        app.include_router(router)
    app.add_exception_handler(AgentError, _agent_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _bug)

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi_json(caller: Reader) -> JSONResponse:
        return JSONResponse(openapi())

    return app


def _document(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(
        title=app.title,
        version=__version__,
        description=app.description,
        routes=app.routes,
    )
    for path in document["paths"].values():
        for operation in path.values():
            # FastAPI's own answer to what is not valid; ours is 400.
            operation["responses"].pop("422", None)
            for status, answer in operation["responses"].items():
                # It has errors in the form of the success. Ours are JSON wherever they occur.
                if int(status) >= 400:
                    answer["content"] = {"application/json": {"schema": _ERROR}}
    components = document["components"]
    for name in ("HTTPValidationError", "ValidationError"):
        components["schemas"].pop(name, None)
    components["securitySchemes"] = {"Token": {"type": "http", "scheme": "bearer"}}
    document["security"] = [{"Token": []}]
    return document


async def _agent_error(_request: Request, error: Exception) -> Response:
    if not isinstance(error, AgentError):
        raise error
    return refusal(error)


async def _invalid(_request: Request, error: Exception) -> Response:
    """The first thing that is wrong with a request, and where."""
    if not isinstance(error, RequestValidationError):
        raise error
    first = error.errors()[0]
    # body, query, path: where it is; numbers: where in a text that is no JSON.
    where = ".".join(str(part) for part in first["loc"][1:] if isinstance(part, str))
    return refusal(InvalidArgument(where or str(first["loc"][0]), first["msg"]))


async def _bug(_request: Request, _error: Exception) -> Response:
    """What no layer expected. It is raised again afterwards, and logged by Guard."""
    return api_error(500, "unexpected error; the log says more")


async def _http_error(request: Request, error: Exception) -> Response:
    """What the framework refuses: unknown paths, methods, and bodies that it cannot read."""
    if not isinstance(error, HTTPException):
        raise error
    # Whatever happens while a body is read, the framework calls the body's fault.
    if isinstance(error.__cause__, AgentError):
        return refusal(error.__cause__)
    if error.status_code == 404:
        return refusal(NoSuchPage(request.url.path))
    return api_error(error.status_code, str(error.detail), None, dict(error.headers or {}))
