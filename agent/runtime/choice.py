"""Which checkpoint a container gets, and none that is older than what its pod has been."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from agent.errors import CheckpointNotFound
from agent.runtime.asked import Asked
from agent.runtime.begun import Begin
from agent.runtime.sandboxes import Sandbox
from agent.runtime.source import Source, Sources, is_path

_BEFORE: Final = "the pod has run before, in an earlier sandbox"


class RanBefore(Exception):
    """The pod has begun already, and what it asks for is no later than that."""


def choose(sources: Sources, sandbox: Sandbox, asked: Asked) -> Source:
    """The checkpoint that the pod's first container has got, or else the one that is asked for.

    A pod begins once from what its author or the API named: in a later sandbox that would put old
    memory and old volumes in the place of newer ones. By name it goes on from a checkpoint of
    itself that was made since. Blocks.

    Raises:
        RanBefore
        InvalidArgument, CheckpointNotFound, CheckpointCorrupt, FormatTooNew, StoreFailed,
        RestoreFailed: as Sources.find says.
    """
    before = sandbox.began_before()
    if before and (asked.action_id or is_path(asked.wanted or "")):
        raise RanBefore(f"{_BEFORE}: a checkpoint is restored into it once")
    wanted = sandbox.decision.path or asked.wanted or ""
    try:
        source = sources.find(wanted, asked.identity.pod.namespace)
    except CheckpointNotFound:
        if before:
            raise RanBefore(f"{_BEFORE}, and has no checkpoint since") from None
        raise
    if before and not _is_later(source, sandbox, before):
        raise RanBefore(f"{_BEFORE}, and {source.path} is no later one of it")
    return source


def _is_later(source: Source, sandbox: Sandbox, before: Begin) -> bool:
    """Whether it is of this very pod, from after it has begun."""
    pod, made = source.manifest.pod, source.manifest.created_at
    if pod is None or pod.uid != sandbox.pod.uid:
        return False
    try:
        return datetime.fromisoformat(made).timestamp() > before.at
    except ValueError:
        return False
