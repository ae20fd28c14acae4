"""What every request passes first: who asks, how often, how much; and what answers when it fails.

Pure ASGI, around the whole application: nothing of a body is read before it is known who sends it.
"""

from __future__ import annotations

import time
from typing import Final

from starlette.requests import Request
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agent.api.answers import api_error, refusal
from agent.api.auth import address_of, authenticate
from agent.api.errors import TooBig, Unauthenticated
from agent.api.limits import Rates, limited
from agent.api.parts import Parts
from agent.api.routes.page import PUBLIC
from agent.errors import AgentError
from agent.logs import get_logger

log = get_logger(__name__)

# Answered without a token: health, and the way in. The last one looks for itself.
_OPEN: Final = {
    ("GET", "/healthz"), ("GET", "/readyz"), ("POST", "/session"), ("GET", "/"),
    *(("GET", f"/page/{name}") for name in PUBLIC),
}  # fmt: skip

# Methods that are counted by their names: anybody may send any other word, and as many as he likes.
_METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


class Guard:
    """Around the application."""

    def __init__(self, app: ASGIApp, parts: Parts) -> None:
        api = parts.settings.api
        self._app, self._parts, self._limit = app, parts, api.request_bytes
        self._rates = Rates(api.requests_per_second, 2 * api.requests_per_second)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, answered = time.monotonic(), 0

        async def sending(message: Message) -> None:
            nonlocal answered
            if message["type"] == "http.response.start":
                answered = message["status"]
            await send(message)

        try:
            await self._guarded(scope, receive, sending)
        except AgentError as error:
            # Once an answer has begun there is no other; the connection ends.
            if answered:
                raise
            await refusal(error)(scope, receive, sending)
        except Exception:
            log.exception("a bug: request failed", path=scope["path"])
            if answered:
                raise
            answer = api_error(500, "unexpected error; the log says more")
            await answer(scope, receive, sending)
        finally:
            self._parts.metrics.requests.labels(
                _method(scope), _route(scope), str(answered)
            ).observe(time.monotonic() - began)

    async def _guarded(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope)
        if (request.method, request.url.path) not in _OPEN:
            try:
                caller = await authenticate(request, self._parts.database)
            except Unauthenticated:
                self._parts.wrong.ask(address_of(request))
                raise
            request.state.caller = caller
            self._rates.ask(caller.token_id)
        length = request.headers.get("Content-Length", "0")
        if length.isdecimal() and int(length) > self._limit:
            raise TooBig(self._limit)
        await self._app(scope, limited(receive, self._limit), send)


def _method(scope: Scope) -> str:
    method = str(scope["method"])
    return method if method in _METHODS else "other"


def _route(scope: Scope) -> str:
    """The pattern, not the path: there are as many paths as actions."""
    route = scope.get("route")
    return route.path if isinstance(route, Route) else "other"
