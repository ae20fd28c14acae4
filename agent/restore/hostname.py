"""The image in which CRIU keeps a host's name, for a container that gets another one."""

from __future__ import annotations

from agent.host.launcher import wire

# Of an image's file: two magic numbers, and the length of the one message that follows.
_MAGIC_BYTES, _LENGTH_BYTES = 8, 4

# Of utsns_entry in CRIU's images/utsns.proto.
_NODE_NAME = 1


def is_hostname_image(name: str) -> bool:
    """Whether an image of CRIU holds a host's name."""
    return name.startswith("utsns-")


def renamed(image: bytes, hostname: str) -> bytes:
    """The same image with another name in it. Raises ValueError for anything else."""
    begin = _MAGIC_BYTES + _LENGTH_BYTES
    length = int.from_bytes(image[_MAGIC_BYTES:begin], "little")
    if len(image) != begin + length:
        raise ValueError("not one message in an image")
    entry = wire.text(_NODE_NAME, hostname.encode())
    for number, value in wire.fields(image[begin:]):
        if number != _NODE_NAME and isinstance(value, bytes):
            entry += wire.text(number, value)
    return image[:_MAGIC_BYTES] + len(entry).to_bytes(_LENGTH_BYTES, "little") + entry
