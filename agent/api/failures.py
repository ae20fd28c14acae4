"""Errors of the API's own as they are stored with the action that they end."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from agent.errors import AgentError
from agent.messages.model import Failure


def failure_of(error: AgentError) -> dict[str, Any]:
    """As a node's failures are stored."""
    failure = Failure.of(error)
    return {**asdict(failure), "details": dict(failure.details)}
