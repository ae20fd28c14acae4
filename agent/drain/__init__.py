"""Checkpoints of the pods that ask for them, before their node goes.

``Drainer`` is the whole of it for the daemon; a ``Source`` says that the node goes.
"""

from agent.drain.drainer import Drainer
from agent.drain.notice import Notice, Source, Tell
from agent.drain.sources import sources

__all__ = ["Drainer", "Notice", "Source", "Tell", "sources"]
