"""Periodic checkpoints of the pods that ask for them, by an annotation.

``Heartbeats`` is the whole of it for the daemon; ``wishes`` reads what pods ask for, and
``keep_newest`` deletes what newer checkpoints have replaced.
"""

from agent.heartbeat.keeping import keep_newest
from agent.heartbeat.loop import Heartbeats
from agent.heartbeat.wishes import Wish, drain_kind, keep_of, wish_of

__all__ = ["Heartbeats", "Wish", "drain_kind", "keep_newest", "keep_of", "wish_of"]
