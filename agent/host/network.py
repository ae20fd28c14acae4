"""The network lock that a killed CRIU leaves on a container.

While it dumps or restores, CRIU lets nothing pass in the container's network namespace but its own
packets: INPUT and OUTPUT jump to a chain ``CRIU`` that drops the rest. (criu/net.c of CRIU 4.1.) It
takes that back at its end; killed, it does not, and the container would be cut off for good.
"""

from __future__ import annotations

import contextlib

from agent.errors import MissingTool
from agent.host.run import run

# In this order: empty, it lets everything pass already.
_STEPS = (("-F", "CRIU"), ("-D", "INPUT", "-j", "CRIU"), ("-D", "OUTPUT", "-j", "CRIU"),
          ("-X", "CRIU"))  # fmt: skip


async def unlock(pid: int) -> bool:
    """Open the network namespace of a process, if it is locked; whether it was.

    Only when no CRIU works on it any more.
    """
    opened = False
    with contextlib.suppress(MissingTool):
        for program in ("iptables", "ip6tables"):
            enter = ["nsenter", f"--net=/proc/{pid}/ns/net", program, "--wait"]
            for step in _STEPS:
                if (await run([*enter, *step], check=False)).returncode:
                    break
                opened = True
    return opened
