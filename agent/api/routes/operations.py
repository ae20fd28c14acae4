"""For those who run it: health, metrics, and the documentation."""

from __future__ import annotations

from importlib import resources
from typing import Final

from fastapi import APIRouter
from fastapi.openapi.docs import get_swagger_ui_html
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from sqlalchemy import text
from starlette.responses import HTMLResponse, JSONResponse, Response

from agent.api.auth import Reader
from agent.api.errors import DatabaseFailed, NoSuchPage
from agent.api.parts import Here

router = APIRouter(include_in_schema=False)

_SWAGGER: Final = {"swagger-ui-bundle.js": "text/javascript", "swagger-ui.css": "text/css"}

# Swagger UI's page begins with a script of its own, and it styles as it goes.
_DOCS_POLICY: Final = (
    "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; frame-ancestors 'none'"
)


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok"}


@router.get("/readyz")
async def readyz(parts: Here) -> JSONResponse:
    """Whether it can do its work: with the database, and with the broker."""
    problems = []
    try:
        async with parts.database.read() as session:
            await session.execute(text("SELECT 1"))
    except DatabaseFailed as error:
        problems.append(str(error))
    if not parts.control.ready:
        problems.append(f"event stream: {parts.control.problem}")
    status = "not ready" if problems else "ready"
    return JSONResponse({"status": status, "problems": problems}, 503 if problems else 200)


@router.get("/metrics")
async def metrics(parts: Here, caller: Reader) -> Response:
    """For Prometheus."""
    parts.metrics.broker_connected.set(1 if parts.control.ready else 0)
    parts.metrics.nodes.set(len(parts.control.nodes.live()))
    return Response(generate_latest(parts.metrics.registry), media_type=CONTENT_TYPE_LATEST)


@router.get("/docs")
async def docs(caller: Reader) -> HTMLResponse:
    """The reference, to read and to try out."""
    page = get_swagger_ui_html(
        openapi_url="/openapi.json",
        title="Actions API",
        swagger_js_url="/docs/swagger-ui-bundle.js",
        swagger_css_url="/docs/swagger-ui.css",
        swagger_favicon_url="/page/favicon.svg",
    )
    page.headers["Content-Security-Policy"] = _DOCS_POLICY
    return page


@router.get("/docs/{file}")
async def docs_file(file: str, caller: Reader) -> Response:
    """Swagger UI's own files."""
    if file not in _SWAGGER:
        raise NoSuchPage(f"/docs/{file}")
    content = resources.files("fastapi_swagger").joinpath("resources", file).read_bytes()
    return Response(content, media_type=_SWAGGER[file])
