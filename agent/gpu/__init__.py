"""GPU state of containers: found, refused if it cannot be taken, suspended for a dump, resumed."""

from __future__ import annotations

from agent.gpu.finding import GPU_NODE, GpuProcess, find_processes, visible_minors
from agent.gpu.gate import check_before_dump, check_driver, device_map
from agent.gpu.resuming import resume
from agent.gpu.suspending import Suspension

__all__ = [
    "GPU_NODE",
    "GpuProcess",
    "Suspension",
    "check_before_dump",
    "check_driver",
    "device_map",
    "find_processes",
    "resume",
    "visible_minors",
]
