"""The node on the event stream: actions come from JetStream, events and inventory go there.

The only package that knows NATS. proto/EVENTS.md is what the other side relies on.
"""

from agent.events.service import Events

__all__ = ["Events"]
