"""What the routes' descriptions share."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import Header

from agent.api.schemas import ApiError

Responses = dict[int | str, dict[str, Any]]

IdempotencyKey = Annotated[
    str | None,
    Header(
        description="Chosen by the client. Requests of one token with the same key, within a day, "
        "are one action."
    ),
]

_COMMON: Final = {
    401: "No token, or one that is not valid",
    403: "The token lacks the scope",
    429: "Too many requests",
}


def refusals(**described: str) -> Responses:
    """ApiErrors by status, ``s404="..."``, beside those that every path has."""
    own = {int(name.removeprefix("s")): text for name, text in described.items()}
    return {
        status: {"model": ApiError, "description": text}
        for status, text in sorted((_COMMON | own).items())
    }


def success(description: str) -> Responses:
    """What 200 means."""
    return {200: {"description": description}}
