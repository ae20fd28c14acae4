"""Runs on a GPU, as a process of its own; knows what its memory should hold. Needs PyTorch.

    python workload.py hold DIRECTORY MIB           holds tensors; on SIGUSR1 sums them up again
    python workload.py train DIRECTORY STEPS SEED   trains a small network, step by step
    python workload.py bandwidth DIRECTORY          measures copies between GPU and pinned memory

DIRECTORY/steps is how far it is, DIRECTORY/digest what it holds or has trained, DIRECTORY/bandwidth
what was measured, as JSON.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import signal
import sys
import time
from pathlib import Path

# Bit-equal runs: cuBLAS otherwise takes whichever workspace is free.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

import torch

STEP_SECONDS = 0.01


def tell(path: Path, text: str) -> None:
    """Replace a file whole."""
    fresh = path.with_suffix(".new")
    fresh.write_text(text)
    fresh.replace(path)


def digest(tensors: list[torch.Tensor]) -> str:
    """Of every bit, brought back from the GPU piece by piece."""
    found = hashlib.sha256()
    for tensor in tensors:
        flat = tensor.detach().reshape(-1).view(torch.uint8)
        for at in range(0, flat.numel(), 64 << 20):
            piece = flat[at : at + (64 << 20)].cpu()
            # Not by way of NumPy, which PyTorch can do without.
            found.update(ctypes.string_at(piece.data_ptr(), piece.numel()))
    return found.hexdigest()


def hold(directory: Path, mebibytes: int) -> None:
    """Tensors of random bits, and a kernel now and then."""
    torch.manual_seed(1)
    count = max(1, mebibytes // 256)
    size = mebibytes // count << 18  # of floats, in each
    tensors = [torch.rand(size, device="cuda") for _ in range(count)]
    spare = torch.zeros(1 << 20, device="cuda")
    asked = []
    signal.signal(signal.SIGUSR1, lambda *_: asked.append(1))
    step = 0
    tell(directory / "digest", digest(tensors))
    while True:
        spare += 1
        torch.cuda.synchronize()
        step += 1
        tell(directory / "steps", str(step))
        if asked:
            asked.clear()
            tell(directory / "digest", digest(tensors))
        time.sleep(STEP_SECONDS)


def train(directory: Path, steps: int, seed: int) -> None:
    """A network that learns nothing of use, the same way each time."""
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(seed)
    layers = [torch.nn.Linear(512, 512), torch.nn.GELU(), torch.nn.Linear(512, 512)]
    network = torch.nn.Sequential(*layers).cuda()
    optimizer = torch.optim.AdamW(network.parameters())
    for step in range(steps):
        batch = torch.randn(256, 512, device="cuda")
        loss = (network(batch) - batch.flip(1)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        torch.cuda.synchronize()
        tell(directory / "steps", str(step + 1))
        time.sleep(STEP_SECONDS)
    tell(directory / "digest", digest(list(network.parameters())))


def bandwidth(directory: Path) -> None:
    """Bytes a second, the best of five copies of 1 GiB each way; and what they were measured on."""
    size = 1 << 30
    pinned = torch.empty(size, dtype=torch.uint8, pin_memory=True)
    device = torch.empty(size, dtype=torch.uint8, device="cuda")
    found: dict[str, object] = {
        "torch": torch.__version__,
        "gpu": torch.cuda.get_device_name(),
        "gpu_bytes": torch.cuda.get_device_properties(0).total_memory,
    }
    for name, target, source in (("to_gpu", device, pinned), ("from_gpu", pinned, device)):
        seconds = []
        for _ in range(5):
            torch.cuda.synchronize()
            began = time.monotonic()
            target.copy_(source, non_blocking=True)
            torch.cuda.synchronize()
            seconds.append(time.monotonic() - began)
        found[name] = size / min(seconds)
    tell(directory / "bandwidth", json.dumps(found))


if __name__ == "__main__":
    what, place, *numbers = sys.argv[1:]
    if what == "bandwidth":
        bandwidth(Path(place))
    elif what == "hold":
        hold(Path(place), int(numbers[0]))
    else:
        train(Path(place), int(numbers[0]), int(numbers[1]))
