"""CRIU's lock where the network is the node's: single connections, each dropped by two rules.

Of what has no network of its own (a process tree, a container with the node's network) CRIU locks
what it keeps with ``-I INPUT ... -j DROP`` and ``-I OUTPUT ... -j DROP`` (criu/netfilter.c of
CRIU 4.2). Killed, it leaves them. Another dump may be at work beside it, so only the rules about
sockets that the dead one's processes hold are taken back.
"""

from __future__ import annotations

import contextlib
from ipaddress import IPv4Address, IPv6Address, ip_address

from agent.errors import NetworkStuck
from agent.host import iptables, network, process
from agent.host.own_thread import in_own_thread
from agent.host.repair import tcp_sockets
from agent.host.run import CommandFailed

# What CRIU's own packets are marked with.
_MARK = "0xc114"

_Address = IPv4Address | IPv6Address
# Of the process's end and the other one.
_Connection = tuple[tuple[_Address, int], tuple[_Address, int]]


async def unlock(root: int, started: int) -> bool:
    """Take back the locks on what a process and those below it are connected to; whether there
    were any. Only when no CRIU works on them any more.

    Raises:
        NetworkStuck: one may still be there. All was tried.
    """
    held = await in_own_thread(lambda: _held(root, started))
    opened, failure = False, None
    for program in iptables.programs():
        version = 6 if program == "ip6tables" else 4
        wanted = {_rule(chain, one) for chain in ("INPUT", "OUTPUT") for one in held
                  if one[0][0].version == version}  # fmt: skip
        if not wanted:
            continue
        try:
            opened = await _unlock(root, program, wanted) or opened
        except NetworkStuck as error:
            failure = failure or error
    if failure is not None:
        raise failure
    return opened


async def _unlock(root: int, program: str, wanted: set[str]) -> bool:
    namespace = network.of_process(root)
    found = [rule for rule in await iptables.rules(namespace, program) if rule in wanted]
    try:
        for rule in found:
            await iptables.call(namespace, program, *rule.replace("-A", "-D", 1).split())
    except CommandFailed as error:
        raise NetworkStuck(str(namespace), str(error)) from error
    return bool(found)


def _held(root: int, started: int) -> set[_Connection]:
    """What the processes are connected to; nothing when they are gone."""
    held = set[_Connection]()
    if process.is_alive(root, started):
        for connection in tcp_sockets(process.tree(root)):
            with connection, contextlib.suppress(OSError):  # it listens, or is closed
                held.add((_end(connection.getsockname()), _end(connection.getpeername())))
    return held


def _end(name: tuple[str, int]) -> tuple[_Address, int]:
    # What comes over IPv4 to a socket for both is locked as what it is.
    address = ip_address(name[0])
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address, name[1]


def _rule(chain: str, connection: _Connection) -> str:
    """As `iptables -S` prints it."""
    source, destination = connection if chain == "OUTPUT" else reversed(connection)
    length = source[0].max_prefixlen
    return (
        f"-A {chain} -s {source[0]}/{length} -d {destination[0]}/{length} -p tcp"
        f" -m mark ! --mark {_MARK}"
        f" -m tcp --sport {source[1]} --dport {destination[1]} -j DROP"
    )
