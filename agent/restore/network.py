"""The network that a container is restored into, and in what state it has to be left."""

from __future__ import annotations

from dataclasses import replace

from agent.errors import NetworkStuck, RestoreFailed
from agent.host import network, runc
from agent.restore.request import RestoreTarget


async def with_network(target: RestoreTarget) -> RestoreTarget:
    """The target, and the namespace to open when its restore fails.

    CRIU locks it before it takes up connections, and opens it only when it succeeds: the rest of a
    pod would be cut off. One that the dump has left locked stays so. Whatever comes in there is for
    connections that are nowhere else, and the kernel would reset them; they can be taken up at the
    next attempt.

    Raises:
        BundleInvalid: its configuration cannot be read.
        RestoreFailed: nobody knows whether the network is locked, and so how to leave it.
    """
    if target.bundle is None:
        return target
    namespace = network.joined(runc.read_config(target.bundle))
    if namespace is None:
        return target
    options = target.member.options
    repairs = options.tcp_established and not options.tcp_close
    try:
        locked = repairs and await network.is_locked(namespace)
    except NetworkStuck as error:
        raise RestoreFailed(target.name, str(error)) from error
    return replace(target, network=namespace, locked=locked)
