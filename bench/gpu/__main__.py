"""``make bench-gpu``: how long a checkpoint of GPU memory takes, beside the bandwidth of its bus.

Writes bench/GPU_RESULTS.md, or the file it is given. Standard library only: PyTorch runs in
processes of its own, and so does the agent.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from bench.gpu.machine import AgentSaid, Lab, Unusable, ended, lab, medians, python_with_torch
from bench.markdown import table

RESULTS = Path(__file__).resolve().parent.parent / "GPU_RESULTS.md"
SIZES_GIB = (1, 8, 32)
ROUNDS = 3
GIB = 1 << 30

# Columns: what they are called, and what the agent calls it.
_CHECKPOINT = {
    "lock": "cuda_lock",
    "from the GPU": "cuda_checkpoint",
    "dump": "dump",
    "store": "store",
    "back and unlock": "cuda_restore",
    "frozen": "frozen_seconds",
    "wall": "wall_seconds",
}


def main(output: Path = RESULTS) -> int:
    """Measure, and write what it came to; the exit status."""
    rows: list[dict[str, float]] = []
    status = 0
    try:
        python = python_with_torch()
        with lab(python) as made:
            bus = made.bandwidth()
            for size in SIZES_GIB:
                if not _fits(size, bus, made.directory):
                    print(f"bench-gpu: no room for {size} GiB")
                    continue
                try:
                    rows.append(_measure(made, size))
                except (AgentSaid, RuntimeError, TimeoutError, subprocess.TimeoutExpired) as error:
                    print(f"bench-gpu: {size} GiB: {error}")
                    status = 1
                    break
                # After each, so that somebody who has no more time has these.
                output.write_text(_render(bus, rows))
    except Unusable as reason:
        print(f"bench-gpu: nothing measured, {reason}")
        return 0
    print(f"bench-gpu: {len(rows)} sizes, see {output}")
    return status


def _fits(gibibytes: int, bus: dict[str, Any], directory: Path) -> bool:
    """On the GPU; twice into memory, the driver's copy and what is on its way; on the disk."""
    told = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    free = int(told["MemAvailable"].split()[0]) << 10
    return (
        gibibytes * GIB < 0.9 * bus["gpu_bytes"]
        and (2 * gibibytes + 4) * GIB < free
        and (gibibytes + 2) * GIB < shutil.disk_usage(directory).free
    )


def _measure(made: Lab, gibibytes: int) -> dict[str, float]:
    """Medians of some checkpoints and restores of one process with so much on its GPU."""
    held = made.start(f"held-{gibibytes}", "hold", 1024 * gibibytes)
    held.digest()
    rounds: list[dict[str, float]] = []
    for at in range(ROUNDS):
        store = made.directory / f"store-{gibibytes}-{at}"
        kept = made.checkpoint(held, store=store)
        shutil.rmtree(store)
        stopped = made.checkpoint(held, "--stop", store=store)
        ended(held.pid)
        back = made.restore(stopped["path"])
        shutil.rmtree(store)
        held.beyond(held.steps)
        figures = {name: kept[name] for name in ("frozen_seconds", "wall_seconds")}
        again = {"restore": back["wall_seconds"], "restore_cuda": back["phases"]["cuda_restore"]}
        rounds.append({**kept["phases"], **figures, **again})
    made.end()
    return {"gib": gibibytes, **medians(rounds)}


def _render(bus: dict[str, Any], rows: list[dict[str, float]]) -> str:
    speed = [f"{bus[way] / 1e9:.1f}" for way in ("from_gpu", "to_gpu")]
    figures = [
        [f"{row['gib']:.0f} GiB", *(f"{row.get(key, 0):.3f}" for key in _CHECKPOINT.values()),
         f"{row['gib'] * GIB / 1e9 / row['cuda_checkpoint']:.1f}",
         f"{row['gib'] * GIB / 1e9 / row['cuda_restore']:.1f}",
         f"{row['restore']:.3f}", f"{row['restore_cuda']:.3f}"]
        for row in rows
    ]  # fmt: skip
    head = ["on the GPU", *(f"{name}, s" for name in _CHECKPOINT),
            "GB/s from it", "GB/s back", "restore, s", "of that onto the GPU, s"]  # fmt: skip
    today = datetime.now(timezone.utc)
    return "\n\n".join(
        [
            "# GPU results",
            f"`make bench-gpu`, {today:%Y-%m-%d}: medians of {ROUNDS} rounds of"
            " checkpoints that leave a process running, and of restores of one that was stopped."
            f" Its memory holds random numbers. Copies of 1 GiB between the GPU and pinned memory"
            f" by PyTorch, in the same run: {speed[0]} GB/s from the GPU, {speed[1]} GB/s to it.",
            table(head, figures),
            "## Machine",
            table(["what", "is"], _facts(bus).items()),
        ]
    ) + "\n"  # fmt: skip


def _facts(bus: dict[str, Any]) -> dict[str, str]:
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        driver = subprocess.run(query, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        driver = "unknown"
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "GPU": f"{bus['gpu']}, {bus['gpu_bytes'] / GIB:.0f} GiB",
        "driver": driver.split("\n")[0].strip(),
        "PyTorch": str(bus["torch"]),
        "processor": f"{platform.machine()}, {os.cpu_count()} cores",
        "memory": f"{memory / GIB:.0f} GiB",
        "kernel": platform.release(),
    }


if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:2])))
