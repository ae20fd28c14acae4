"""``checkpoint-agent dev``: a broker, the daemon and the API on this machine, nothing to configure.

Three programs as they run anywhere else, on loopback and in one directory, for as long as this one
lives.
"""

from agent.dev.main import Ready, Wanted, serve

__all__ = ["Ready", "Wanted", "serve"]
