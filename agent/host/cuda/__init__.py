"""NVIDIA's driver: checkpoints of what processes have on GPUs, and which GPUs there are.

Libraries of the driver are only ever loaded in a helper process (helper.py): they may crash, or
hang for good, and that must touch neither the daemon nor what it has frozen. client.py is its other
end.
"""

from __future__ import annotations

from agent.host.cuda.client import Cuda
from agent.host.cuda.model import CudaFailed, CudaState, Gpu, Inventory

__all__ = ["Cuda", "CudaFailed", "CudaState", "Gpu", "Inventory"]
