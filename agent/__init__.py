"""checkpoint-agent: consistent, streamed checkpoints of containers and processes."""

__version__ = "0.1.0"
