"""iptables and ip6tables, in the network namespace that is asked about."""

from __future__ import annotations

import shutil
from pathlib import Path

from agent.errors import AgentError, NetworkStuck
from agent.host.own_thread import in_own_thread
from agent.host.run import CommandFailed, run

_PROGRAMS = ("iptables", "ip6tables")

# Seconds. A call takes milliseconds; but who has the lock of all iptables may keep it.
_TIMEOUT = 20.0

# What iptables says, the older and the newer, on a kernel that has no such rules at all.
_NO_RULES = ("Table does not exist", "Failed to initialize nft: Protocol not supported")


def programs() -> list[str]:
    """Those that CRIU locks with: it looks at the same file for whether there is IPv6."""
    return [name for name in _PROGRAMS if name == "iptables" or Path("/proc/sys/net/ipv6").exists()]


async def rules(namespace: Path, program: str) -> list[str]:
    """As the program prints them; none where there can be none.

    Raises:
        NetworkStuck: they cannot be read.
    """
    if not any(shutil.which(name) for name in (program, f"{program}-restore")):
        # A CRIU that we start has our PATH, locks with the second, and dumps nothing without: one
        # that has worked here locks with nftables.
        return []
    try:
        return (await call(namespace, program, "-S")).split("\n")
    except CommandFailed as error:
        if any(words in error.stderr for words in _NO_RULES):
            return []
        if not await in_own_thread(lambda: is_there(namespace)):
            return []
        raise NetworkStuck(str(namespace), str(error)) from error


def is_there(namespace: Path) -> bool:
    """Whether there is a namespace behind the path: its name may outlive it, as an empty file."""
    try:
        return namespace.stat().st_dev == Path("/proc/self/ns/net").stat().st_dev
    except (FileNotFoundError, NotADirectoryError, ProcessLookupError):
        return False
    except OSError:
        return True


async def call(namespace: Path, program: str, *words: str) -> str:
    """What the program says.

    Raises:
        CommandFailed: it refuses.
        NetworkStuck: it cannot be started, or does not come to its turn.
    """
    # In the short form, which busybox's knows too.
    command = ["nsenter", f"-n{namespace}", program, "--wait", *words]
    try:
        return (await run(command, timeout=_TIMEOUT)).stdout
    except CommandFailed:
        raise
    except TimeoutError as error:
        reason = f"{program} has not ended within {_TIMEOUT:g} s"
        raise NetworkStuck(str(namespace), reason) from error
    except (AgentError, OSError) as error:
        raise NetworkStuck(str(namespace), str(error)) from error
