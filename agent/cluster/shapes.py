"""The shapes that parts of a pod must have before anybody looks into them."""

from __future__ import annotations

from typing import Any

from agent.cluster.answers import Object
from agent.errors import InvalidArgument


def objects(value: Any, field: str) -> list[Object]:  # noqa: ANN401 - any JSON
    """A list of objects; none where there is nothing. Raises InvalidArgument."""
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise InvalidArgument(field, "must be a list of objects")
    return value


def mapping(value: Any, field: str) -> Object:  # noqa: ANN401 - any JSON
    """An object; an empty one where there is nothing. Raises InvalidArgument."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidArgument(field, "must be an object")
    return value


def texts(value: Any, field: str) -> dict[str, str]:  # noqa: ANN401 - any JSON
    """Texts by name; none where there is nothing. Raises InvalidArgument."""
    found = mapping(value, field)
    if not all(isinstance(each, str) for each in found.values()):
        raise InvalidArgument(field, "must have texts only")
    return dict(found)
