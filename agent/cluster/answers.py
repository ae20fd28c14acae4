"""What the API server answers, as objects or as errors; none of it is believed before."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from agent.errors import ClusterRefused, ClusterUnreachable, InvalidArgument

if TYPE_CHECKING:
    from aiohttp import ClientResponse

Object = dict[str, Any]

# Bytes of an answer. The pods of a whole large node are some 5 MiB; etcd keeps 1.5 MiB of each.
MAX_ANSWER: Final = 32 << 20
# Of an answer's message: admission may quote a whole object.
_LONGEST: Final = 2000

# Statuses after which the same request may well succeed.
_LATER: Final = (408, 429, 500, 502, 503, 504)


@dataclass(frozen=True, slots=True)
class Watched:
    """One change: ``ADDED``, ``MODIFIED``, ``DELETED`` or ``BOOKMARK``, and the object then."""

    type: str
    object: Object


async def whole(response: ClientResponse) -> bytes:
    """The body. Raises ValueError if it is longer than anything that was asked for can be."""
    parts = []
    left = MAX_ANSWER
    async for part in response.content.iter_any():
        left -= len(part)
        if left < 0:
            raise ValueError(f"the answer has more than {MAX_ANSWER} bytes")
        parts.append(part)
    return b"".join(parts)


@contextlib.contextmanager
def translated(operation: str) -> Iterator[None]:
    """Raises ClusterUnreachable for all that goes wrong before there is an answer."""
    from aiohttp import ClientError

    try:
        yield
    except TimeoutError:
        # Before OSError, which it is as well.
        raise ClusterUnreachable(operation, "no answer within the time for it") from None
    except InvalidArgument as error:
        # The token's file, between two of them.
        raise ClusterUnreachable(operation, str(error)) from error
    except (ClientError, OSError, ValueError, RecursionError) as error:
        reason = str(error)[:_LONGEST] or type(error).__name__
        raise ClusterUnreachable(operation, reason) from error


def failure(
    operation: str, response: ClientResponse, data: bytes
) -> ClusterRefused | ClusterUnreachable:
    """What an answer that is no success says; it should be a Status object."""
    try:
        told = json.loads(data)
    except (ValueError, RecursionError):
        told = None
    given = told if isinstance(told, dict) else {}
    message = str(given.get("message") or response.reason or "no reason given")[:_LONGEST]
    if response.status in _LATER:
        wait = _seconds(response.headers.get("Retry-After", ""))
        return ClusterUnreachable(operation, f"{response.status}: {message}", wait)
    return ClusterRefused(operation, response.status, str(given.get("reason") or ""), message)


def _seconds(text: str) -> float:
    return float(text) if text.isascii() and text.isdigit() and len(text) < 5 else 0.0


def change(operation: str, line: object) -> Watched:
    given = line if isinstance(line, dict) else {}
    kind, about = given.get("type"), given.get("object")
    if not isinstance(kind, str) or not isinstance(about, dict):
        raise ValueError("a watch tells something else than changes")
    if kind == "ERROR":
        code = about.get("code")
        message = str(about.get("message") or "the watch has failed")[:_LONGEST]
        if not isinstance(code, int) or code in _LATER:
            raise ClusterUnreachable(operation, message)
        raise ClusterRefused(operation, code, str(about.get("reason") or ""), message)
    return Watched(kind, about)
