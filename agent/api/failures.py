"""Errors of the API's own as they are stored with the action that they end."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from agent.api.database.plain import plain
from agent.errors import AgentError
from agent.messages.model import Failure


def failure_of(error: AgentError) -> dict[str, Any]:
    """As a node's failures are stored; what a cluster says may be a container's own words."""
    failure = Failure.of(error)
    return dict(plain({**asdict(failure), "details": dict(failure.details)}))
