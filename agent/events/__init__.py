"""The event stream: actions go to nodes through JetStream, events and inventory come back.

The only package that knows NATS. `Events` is a node's side of it, `Control` that of whoever asks
nodes for actions; proto/EVENTS.md is what either side relies on.
"""

from agent.events.control import Control
from agent.events.feed import Batch, Position
from agent.events.nodes import Located, Nodes
from agent.events.service import Events
from agent.events.stored import StoredEvent

__all__ = ["Batch", "Control", "Events", "Located", "Nodes", "Position", "StoredEvent"]
