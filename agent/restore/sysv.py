"""Shared memory of System V in CRIU's images: who of several containers uses it."""

from __future__ import annotations

from agent.host.launcher import wire

# What of an IPC namespace is there once, however many containers share it: memory, semaphores,
# message queues.
OBJECTS = ("ipcns-shm-", "ipcns-sem-", "ipcns-msg-")
MEMORY = OBJECTS[0]

# The image of a task's address space.
ADDRESS_SPACE = "mm-"

# Of an image's file: two magic numbers, and the length of its one message.
_HEADER_BYTES = 12

# Of mm_entry and vma_entry in CRIU's images/, and of criu/include/image.h.
_VMAS, _STATUS = 14, 7
_SYSVIPC = 1 << 10


def is_attached(address_space: bytes) -> bool:
    """Whether a task has such memory mapped, by its image. Raises ValueError for no such image."""
    for number, value in wire.fields(address_space[_HEADER_BYTES:]):
        if number == _VMAS and isinstance(value, bytes):
            status = dict(wire.fields(value)).get(_STATUS, 0)
            if isinstance(status, int) and status & _SYSVIPC:
                return True
    return False
