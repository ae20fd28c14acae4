"""The network lock that CRIU puts on a container, where nobody else takes it back.

While it dumps or restores, CRIU lets nothing pass in the container's network namespace but its own
packets: INPUT and OUTPUT jump to a chain ``CRIU`` that drops the rest. (criu/net.c of CRIU 4.1.) It
takes that back at its end; but not when it is killed, not when a restore fails, and not after a
dump that has stopped the container, which waits for a restore in the same place. The containers of
a pod share a namespace: each of them, and what is started there next, would be cut off for good.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path

from agent.errors import MissingTool
from agent.host.run import run

_PROGRAMS = ("iptables", "ip6tables")
_CHAIN = "CRIU"
_LOCK = f"-A {_CHAIN} -j DROP"

# Where CRIU jumps there from, in the words of `iptables -S`. A rule of anybody else's is never made
# a command line: whoever may have rules in a pod could give root's iptables options in a comment.
_JUMPS = (f"-A INPUT -j {_CHAIN}", f"-A OUTPUT -j {_CHAIN}")

# Each lock is one jump more of each kind: as many as a pod has containers. Somebody may have made a
# hundred thousand, and the emptied chain lets everything pass without them being gone.
_MOST_JUMPS = 200

# Seconds. A call takes milliseconds; but who has the lock of all iptables may keep it.
_TIMEOUT = 20.0


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
    """Whether a CRIU lets nothing pass there, or has died doing so."""
    return any([_LOCK in await _rules(namespace, program) for program in _PROGRAMS])


async def unlock(namespace: Path, *, to_one: bool = False) -> bool:
    """Take the lock back, if there is one; whether there was. A namespace that is gone has none.

    Only when no CRIU works there any more.

    Args:
        to_one: of several locks leave one, which was there before.
    """
    opened = False
    for program in _PROGRAMS:
        rules = await _rules(namespace, program)
        if f"-N {_CHAIN}" not in rules:
            continue
        opened = True
        # Emptied, the chain lets everything pass at once.
        jumps = [rule for rule in rules if rule in _JUMPS][:_MOST_JUMPS]
        if to_one:
            steps = [jump for jump in _JUMPS for _ in range(jumps.count(jump) - 1)]
        else:
            steps = [f"-F {_CHAIN}", *jumps, f"-X {_CHAIN}"]
        for step in steps:
            words = step.replace("-A", "-D", 1).split()
            await _call(namespace, program, *words)
    return opened


async def _rules(namespace: Path, program: str) -> list[str]:
    """As the program prints them; none where there is no such program or namespace."""
    with contextlib.suppress(MissingTool):
        return (await _call(namespace, program, "-S")).split("\n")
    return []


async def _call(namespace: Path, program: str, *words: str) -> str:
    """What the program says; "" where it fails, or does not come to its turn."""
    command = ["nsenter", f"--net={namespace}", program, "--wait", *words]
    with contextlib.suppress(TimeoutError):
        return (await run(command, timeout=_TIMEOUT, check=False)).stdout
    return ""
