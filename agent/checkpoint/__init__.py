"""Taking a checkpoint: :func:`checkpoint` is the whole of it, in order."""

from agent.checkpoint.job import CheckpointRequest
from agent.checkpoint.sequence import checkpoint

__all__ = ["CheckpointRequest", "checkpoint"]
