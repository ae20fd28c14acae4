"""The network lock that CRIU puts on a container, where nobody else takes it back.

While it dumps or restores, CRIU lets nothing pass in the container's network namespace but its own
packets: INPUT and OUTPUT jump to a chain ``CRIU`` that drops the rest. (criu/net.c of CRIU 4.1.) It
takes that back at its end; but not when it is killed, not when a restore fails, and not after a
dump that has stopped the container, which waits for a restore in the same place. The containers of
a pod share a namespace: each of them, and what is started there next, would be cut off for good.

That is the lock of iptables, CRIU's usual one. One that was told or built to lock with nftables
makes a table of its own (`agent.host.nftables`). So does every restore of what such a one has
dumped, also on another machine: which lock it is stands in the images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from agent.errors import NetworkStuck
from agent.host import iptables, nftables
from agent.host.iptables import is_there
from agent.host.own_thread import in_own_thread
from agent.host.run import CommandFailed

_CHAIN = "CRIU"
_LOCK = f"-A {_CHAIN} -j DROP"

# Where CRIU jumps there from, in the words of `iptables -S`. A rule of anybody else's is never made
# a command line: whoever may have rules in a pod could give root's iptables options in a comment.
_JUMPS = (f"-A INPUT -j {_CHAIN}", f"-A OUTPUT -j {_CHAIN}")

# Each lock is one jump more of each kind: as many as a pod has containers. Somebody may have made a
# hundred thousand, and the emptied chain lets everything pass without them being gone.
_MOST_JUMPS = 200


def of_process(pid: int) -> Path:
    """The network namespace that a process is in."""
    return Path(f"/proc/{pid}/ns/net")


def joined(config: Mapping[str, object]) -> Path | None:
    """The network namespace that an OCI configuration says to join; None for one of its own."""
    linux = config.get("linux")
    namespaces = linux.get("namespaces") if isinstance(linux, dict) else None
    for namespace in namespaces if isinstance(namespaces, list) else ():
        if isinstance(namespace, dict) and namespace.get("type") == "network":
            path = namespace.get("path")
            return Path(path) if isinstance(path, str) and path else None
    return None


async def is_locked(namespace: Path) -> bool:
    """Whether a CRIU lets nothing pass there, or has died doing so.

    Raises:
        NetworkStuck: nobody knows.
    """
    locked = [_LOCK in await iptables.rules(namespace, program) for program in iptables.programs()]
    return any(locked) or await _with_tables(namespace, nftables.is_locked)


async def unlock(namespace: Path, *, to_one: bool = False) -> bool:
    """Take the lock back, if there is one; whether there was. A namespace that is gone has none.

    Only when no CRIU works there any more.

    Args:
        to_one: of several locks leave one, which was there before. A restore makes no second table.

    Raises:
        NetworkStuck: one may still be there. All was tried.
    """
    opened, failure = False, None
    kinds = [partial(_unlock, namespace, program, to_one=to_one) for program in iptables.programs()]
    if not to_one:
        kinds.append(partial(_with_tables, namespace, nftables.unlock))
    for unlock_kind in kinds:
        try:
            opened = await unlock_kind() or opened
        except NetworkStuck as error:
            failure = failure or error
    if failure is not None:
        raise failure
    return opened


async def _with_tables(namespace: Path, work: Callable[[Path], bool]) -> bool:
    """Whether there was any of CRIU's tables to work on; a namespace that is gone has none.

    Raises:
        NetworkStuck: it cannot be done.
    """
    try:
        return await in_own_thread(lambda: work(namespace))
    except OSError as error:
        if not await in_own_thread(lambda: is_there(namespace)):
            return False
        reason = f"nftables: {error.strerror or error}"
        raise NetworkStuck(str(namespace), reason) from error


async def _unlock(namespace: Path, program: str, *, to_one: bool) -> bool:
    rules = await iptables.rules(namespace, program)
    if f"-N {_CHAIN}" not in rules:
        return False
    # Emptied, the chain lets everything pass at once.
    jumps = [rule for rule in rules if rule in _JUMPS][:_MOST_JUMPS]
    if to_one:
        steps = [jump for jump in _JUMPS for _ in range(jumps.count(jump) - 1)]
    else:
        steps = [f"-F {_CHAIN}", *jumps, f"-X {_CHAIN}"]
    failure: CommandFailed | None = None
    for step in steps:
        words = step.replace("-A", "-D", 1).split()
        try:
            await iptables.call(namespace, program, *words)
        except CommandFailed as error:
            # Who opens it for another container of the pod may have been first.
            failure = failure or error
    if failure is not None and _holds(await iptables.rules(namespace, program), to_one=to_one):
        raise NetworkStuck(str(namespace), str(failure)) from failure
    return True


def _holds(rules: list[str], *, to_one: bool) -> bool:
    if to_one:
        return any(rules.count(jump) > 1 for jump in _JUMPS)
    return _LOCK in rules
