"""What this machine is, for the manifest and for people who wonder why a restore fails
elsewhere.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path

from agent.config import Tools
from agent.host.run import run
from agent.manifest import Host

_versions: dict[Path, str] = {}


async def host_facts(tools: Tools) -> Host:
    """This host; versions of tools are asked for once per process."""
    system = os.uname()
    return Host(
        name=system.nodename,
        kernel=system.release,
        architecture=system.machine,
        criu=await _version(tools.criu),
        runc=await _version(tools.runc) if tools.runc else None,
    )


def platform_name() -> str:
    """Distribution and architecture, ``debian/x86_64``; ``linux/...`` where it does not say."""
    try:
        distribution = platform.freedesktop_os_release()["ID"]
    except (OSError, KeyError):
        distribution = "linux"
    return f"{distribution}/{platform.machine()}"


async def _version(tool: Path) -> str:
    if tool not in _versions:
        lines = (await run([tool, "--version"], timeout=10)).stdout.split("\n")
        # `Version: 4.1.1` and `runc version 1.1.5+ds1`
        _versions[tool] = lines[0].split()[-1] if lines[0] else ""
    return _versions[tool]
