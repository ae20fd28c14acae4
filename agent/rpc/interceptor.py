"""What happens around every call of the service: its errors become statuses, here and nowhere else.

A call is logged with who made it. What no layer expected is logged with its traceback and answered
without it: what is inside the agent is nobody's business.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, NoReturn

import grpc
from grpc import aio

from agent.errors import AgentError
from agent.logs import about, get_logger
from agent.messages.model import Failure
from agent.rpc.status import grpc_code, text_of, trailing_metadata

PREFIX: Final = "/checkpoint_agent.v1.Agent/"

# gRPC's own types: messages of any method, and a context that its stubs and its code type apart.
Message = Any
Context = Any
Handler = Any

_log = get_logger(__name__)


# What a caller is told of a bug.
_BUG: Final = Failure(
    code=AgentError.code,
    message=AgentError.template,
    state="unknown",
    hint="this is a bug in checkpoint-agent: the daemon's log has the traceback",
)


class Guard(aio.ServerInterceptor):  # type: ignore[type-arg]
    """Goes around the methods of our own service; health and reflection take care of themselves."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        """The method's handler, guarded."""
        handler = await continuation(handler_call_details)
        name = str(handler_call_details.method)
        if handler is None or not name.startswith(PREFIX):
            return handler
        method = name.removeprefix(PREFIX)
        as_before = {
            "request_deserializer": handler.request_deserializer,
            "response_serializer": handler.response_serializer,
        }
        if handler.unary_stream is not None:
            return grpc.unary_stream_rpc_method_handler(
                _streaming(method, handler.unary_stream), **as_before
            )
        return grpc.unary_unary_rpc_method_handler(
            _answering(method, handler.unary_unary), **as_before
        )


def peer_name(context: Context) -> str:
    """Who has made the call: the common name of the certificate, or root on the unix socket."""
    names = context.auth_context().get("x509_common_name")
    return names[0].decode(errors="replace") if names else "root"


def _answering(
    method: str, call: Callable[[Message, Context], Awaitable[Message]]
) -> Callable[[Message, Context], Awaitable[Message]]:
    async def guarded(request: Message, context: Context) -> Message:
        with about(rpc=method, peer=peer_name(context)):
            try:
                return await call(request, context)
            except (asyncio.CancelledError, aio.AbortError):
                raise
            except Exception as error:  # noqa: BLE001 - every failure has to become a status
                await _abort(context, error)

    return guarded


def _streaming(
    method: str, call: Callable[[Message, Context], AsyncIterator[Message]]
) -> Callable[[Message, Context], AsyncIterator[Message]]:
    async def guarded(request: Message, context: Context) -> AsyncIterator[Message]:
        try:
            async for message in call(request, context):
                yield message
        except (asyncio.CancelledError, aio.AbortError):
            raise
        except Exception as error:  # noqa: BLE001 - as above
            # Not around the loop: a generator may be closed in another context than it began in.
            with about(rpc=method, peer=peer_name(context)):
                await _abort(context, error)

    return guarded


async def _abort(context: Context, error: Exception) -> NoReturn:
    if isinstance(error, AgentError):
        failure = Failure.of(error)
        _log.info("refused", code=failure.code, reason=failure.message)
    else:
        failure = _BUG
        _log.error("a bug in the service", exc_info=error)
    await context.abort(grpc_code(failure), text_of(failure), trailing_metadata(failure))
    raise AssertionError("abort() always raises")
