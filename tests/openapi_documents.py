"""The contract's document with changes, as a server would serve it that differs in them."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from typing import Any

from deploy.contract import CONTRACT

OURS: dict[str, Any] = json.loads(CONTRACT.read_text())

Change = Callable[[dict[str, Any]], object]
# Where something is, from the top of the document.
Way = tuple[str | int, ...]

ACTIONS: Way = ("paths", "/v2/actions", "get")
CHECKPOINT: Way = ("paths", "/v2/checkpoint/pod", "post")
RESTORE: Way = ("paths", "/v2/restore/pod", "post")
SCHEMAS: Way = ("components", "schemas")
POD: Way = (*SCHEMAS, "CheckpointPod", "properties")
STREAMS: Way = (*SCHEMAS, "CheckpointOverrides", "properties", "streams")
OK: Way = (*CHECKPOINT, "responses", "200", "content")


def put(*way: str | int, value: object) -> Change:
    """Set what is at the end of ``way``."""

    def change(document: dict[str, Any]) -> None:
        _at(document, way[:-1])[way[-1]] = value

    return change


def drop(*way: str | int) -> Change:
    """Remove what is at the end of ``way``."""
    return lambda document: _at(document, way[:-1]).pop(way[-1])


def add(*way: str | int, value: object) -> Change:
    """Append to the list at the end of ``way``."""
    return lambda document: _at(document, way).append(value)


def _at(document: dict[str, Any], way: Way) -> Any:  # noqa: ANN401 - anything JSON has
    node: Any = document
    for step in way:
        node = node[step]
    return node


def server(*changes: Change) -> dict[str, Any]:
    """What a server serves that keeps the contract but for these."""
    document = deepcopy(OURS)
    for change in changes:
        change(document)
    return document


def parameter(name: str, place: str, *, required: bool) -> dict[str, Any]:
    """One of text, in the query, a header, ..."""
    return {"name": name, "in": place, "required": required, "schema": {"type": "string"}}


def named(name: str) -> dict[str, Any]:
    """A reference to a component."""
    return {"$ref": f"#/components/schemas/{name}"}
