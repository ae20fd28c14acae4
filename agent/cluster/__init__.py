"""Kubernetes: how its API server is asked, and what the agent makes of a pod.

Nothing outside of here knows kubernetes_asyncio. Objects are the JSON that they are on the wire:
what a newer cluster adds to a pod's spec comes back as it was read.
"""

from agent.cluster.answers import Object, Watched
from agent.cluster.connection import Kubernetes, path_of

__all__ = ["Kubernetes", "Object", "Watched", "path_of"]
