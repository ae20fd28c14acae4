"""What a restore tells CRIU beside, or instead of, what the dump was told."""

from __future__ import annotations

from agent import tcp
from agent.errors import InvalidArgument
from agent.manifest import Options


def for_new_network(options: Options) -> Options:
    """``options`` for a restore where the container has another address: connections end.

    A socket can be repaired only where its address is. Instead, processes find the other side gone,
    in every connection they had; those that listen take new ones. It does not matter what the dump
    was told. As :attr:`RestoreRequest.options` the result changes nothing but that.
    """
    return options.model_copy(update=tcp.flags("close"))


def merged(recorded: Options, given: Options | None) -> Options:
    """What the dump was told, with what is set in ``given`` in its place.

    Raises:
        InvalidArgument: connections are to be repaired that were given up at the dump.
    """
    if given is None:
        return recorded
    options = recorded.model_copy(update=given.model_dump(include=given.model_fields_set))
    if recorded.tcp_close and options.tcp_established:
        reason = "the checkpoint has no connections that could be repaired: they were given up"
        raise InvalidArgument("tcp", reason)
    # As CRIU has it: an image without connections can only be restored without them.
    return options.model_copy(update={"tcp_close": recorded.tcp_close or options.tcp_close})
