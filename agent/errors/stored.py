"""Stores, and what is in them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from agent.errors.base import AgentError


@dataclass(eq=False)
class StoreFailed(AgentError):
    """The store could not read or write: full, read-only, unreachable, forbidden."""

    exit_code: ClassVar[int] = 9
    code: ClassVar[str] = "store_failed"
    template: ClassVar[str] = "{operation} {url}: {reason}"
    hint: ClassVar[str] = "check free space, permissions, the store's URL and its credentials"

    operation: str
    url: str
    reason: str


@dataclass(eq=False)
class CheckpointNotFound(AgentError):
    """No committed checkpoint is at that path: without a manifest it does not exist."""

    exit_code: ClassVar[int] = 10
    code: ClassVar[str] = "checkpoint_not_found"
    template: ClassVar[str] = "no checkpoint at {path}"
    hint: ClassVar[str] = "`checkpoint-agent list --store URL` shows what is there"

    path: str


@dataclass(eq=False)
class CheckpointCorrupt(AgentError):
    """Stored bytes are not what was written: truncated, flipped, or not ours."""

    exit_code: ClassVar[int] = 11
    code: ClassVar[str] = "checkpoint_corrupt"
    template: ClassVar[str] = "{path} is damaged: {reason}"
    hint: ClassVar[str] = "restore another checkpoint; this one cannot be trusted"

    path: str
    reason: str


@dataclass(eq=False)
class FormatTooNew(AgentError):
    """The manifest was written by a newer agent than this one."""

    exit_code: ClassVar[int] = 12
    code: ClassVar[str] = "format_too_new"
    template: ClassVar[str] = "{path} has format {version}; this agent reads up to {supported}"
    hint: ClassVar[str] = "use the version of checkpoint-agent that wrote it, or a newer one"

    path: str
    version: int
    supported: int
