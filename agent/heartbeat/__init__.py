"""Periodic checkpoints of the pods that ask for them, by an annotation.

``Heartbeats`` is the whole of it for the daemon; ``wishes`` reads what pods ask for.
"""

from agent.heartbeat.loop import Heartbeats
from agent.heartbeat.wishes import Wish, drain_kind, wish_of

__all__ = ["Heartbeats", "Wish", "drain_kind", "wish_of"]
