"""GPU state of containers: found, refused if it cannot be taken, suspended for a dump, resumed."""

from __future__ import annotations

from agent.gpu.finding import GpuProcess, find_processes
from agent.gpu.gate import check_before_dump, check_driver, device_map
from agent.gpu.resuming import resume
from agent.gpu.suspending import Suspension

__all__ = [
    "GpuProcess",
    "Suspension",
    "check_before_dump",
    "check_driver",
    "device_map",
    "find_processes",
    "resume",
]
