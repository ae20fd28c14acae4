"""Bringing a checkpoint back: :func:`restore` is the whole of it, in order."""

from agent.restore.options import for_new_network
from agent.restore.request import RestoreRequest
from agent.restore.sequence import restore

__all__ = ["RestoreRequest", "for_new_network", "restore"]
