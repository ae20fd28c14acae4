"""What the agent is asked to do and what it reports, as the rest of it sees that.

``model`` is plain dataclasses; ``requests`` and ``events`` translate them from and to the protobuf
messages of proto/, which is the only form that leaves the process.
"""
