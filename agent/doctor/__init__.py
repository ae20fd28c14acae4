"""What this machine can do, and what to do about what it cannot.

:func:`examine` looks at everything a checkpoint or a restore stands on and returns one
:class:`Finding` per thing. It changes nothing, needs no root and never raises for a broken machine:
that a tool is missing or does not start is a finding like any other.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from agent.config import Tools, find_tools, state_dir, wanted_runc
from agent.doctor.criu import configuration_finding, criu_findings
from agent.doctor.finding import Finding, Status
from agent.doctor.gpus import gpus_finding
from agent.doctor.machine import (
    cgroup_finding,
    gpu_finding,
    kernel_finding,
    pipe_finding,
    run_directory_finding,
    state_directory_finding,
)
from agent.doctor.rights import capability_finding
from agent.doctor.tools import iptables_finding, pycriu_finding, runc_finding, tar_finding
from agent.errors import MissingTool

__all__ = ["Finding", "Status", "examine"]


async def examine(tools: Tools | None = None) -> list[Finding]:
    """Look at everything, in the order a person would want to repair it.

    Args:
        tools: the programs to look at; by default those that the agent would use.
    """
    tools = tools or _tools_or_names()
    # No gather(): cancelled, it would leave the other children to themselves.
    async with asyncio.TaskGroup() as questions:
        criu = questions.create_task(criu_findings(tools.criu))
        runc = questions.create_task(runc_finding(tools.runc or Path(wanted_runc())))
        pycriu = questions.create_task(pycriu_finding())
        iptables = questions.create_task(iptables_finding())
        gpus = questions.create_task(gpus_finding())
    return [
        capability_finding(),
        kernel_finding(),
        *criu.result(),
        configuration_finding(),
        pycriu.result(),
        runc.result(),
        iptables.result(),
        tar_finding(),
        cgroup_finding(),
        pipe_finding(),
        state_directory_finding(state_dir()),
        run_directory_finding(),
        gpu_finding(),
        gpus.result(),
    ]


def _tools_or_names() -> Tools:
    """The tools the agent would use; when CRIU is nowhere, its bare name, for PATH to decide."""
    try:
        return find_tools()
    except MissingTool:
        return Tools(criu=Path("criu"), runc=None)
