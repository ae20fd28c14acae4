"""Taking a checkpoint: :func:`checkpoint` is the whole of it, in order."""

from agent.checkpoint.request import CheckpointRequest, MemberRequest
from agent.checkpoint.sequence import checkpoint

__all__ = ["CheckpointRequest", "MemberRequest", "checkpoint"]
